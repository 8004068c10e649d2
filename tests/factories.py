"""Rows for tests, with sensible defaults."""

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from inference.models import ProviderAccount, Route, RouteTarget
from jobs.models import Batch, File, FileChunk, Job
from tenants.models import Site


def make_site(slug: str = "bakery", **fields: Any) -> Site:
    """A site named after its slug."""
    return Site.objects.create(**{"slug": slug, "name": slug.title(), **fields})


def make_provider(name: str = "sim-openai", **fields: Any) -> ProviderAccount:
    """A provider with a key, rated by OpenAI's price list."""
    wanted = {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1", "price_list": "openai", "api_key": b"sk-test"}
    return ProviderAccount.objects.create(name=name, **{**wanted, **fields})


def make_route(model: str, *targets: tuple[ProviderAccount, str]) -> Route:
    """A route whose targets are asked in the order given."""
    route = Route.objects.create(model=model)
    for position, (provider, upstream_model) in enumerate(targets, 1):
        RouteTarget.objects.create(route=route, provider=provider, upstream_model=upstream_model, position=position)
    return route


def make_job(site: Site, **fields: Any) -> Job:
    """A queued chat job."""
    payload = b'{"model":"desk","messages":[{"role":"user","content":"Say hello."}]}'
    wanted = {"kind": "chat", "model": "desk", "request_hash": b"h" * 32, "payload": payload}
    return Job.objects.create(site=site, **{**wanted, **fields})


def make_file(site: Site, *parts: bytes, **fields: Any) -> File:
    """An uploaded file, stored in these pieces."""
    wanted = {"purpose": "batch", "filename": "requests.jsonl", "bytes": sum(map(len, parts))}
    file = File.objects.create(site=site, **{**wanted, **fields})
    FileChunk.objects.bulk_create(FileChunk(file=file, number=n, content=part) for n, part in enumerate(parts))
    return file


def make_batch(site: Site, **fields: Any) -> Batch:
    """A batch under way."""
    wanted = {"kind": "chat", "state": "in_progress", "request_hash": b"h" * 32, "max_attempts": 3}
    expiry = {"expires_at": Now() + timedelta(days=1), "in_progress_at": Now()}
    return Batch.objects.create(site=site, **{**wanted, **expiry, **fields})

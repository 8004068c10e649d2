"""Batches in progress and ended batches with members, and their pages in the admin."""

from typing import Any

from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from core.ids import new_uuid
from jobs.models import Batch, Job
from metering.models import UsageEvent
from tenants.models import Site
from tests.factories import make_batch, make_job
from tests.operators import words

LIST = "/admin/jobs/batch/"
NOW = timezone.now()
XSS = "<script>alert(1)</script>"


def page_of(batch: Batch) -> str:
    return f"{LIST}{batch.public_id}/change/"


def progress_of(batch: Batch) -> str:
    return f"{LIST}{batch.public_id}/progress/"


def text(browser: Client, address: str) -> str:
    response = browser.get(address, follow=True)
    assert response.status_code == 200, response
    return words(response.content.decode())


def add_members(batch: Batch, state: str, count: int, **fields: Any) -> list[Job]:
    ended = {} if state in ("queued", "running") else {"finished_at": Now()}
    running = {"worker_id": new_uuid(), "deadline_at": NOW} if state == "running" else {}
    values = {"queue": "batch", "state": state, **ended, **running, **fields}
    jobs = [make_job(batch.site, batch=batch, **{"custom_id": str(new_uuid()), **values}) for _ in range(count)]
    Batch.objects.filter(id=batch.id).update(total=Job.objects.filter(batch=batch).count())
    return jobs


def bill(jobs: list[Job], cost_pico_usd: int, price_version: str = "v1") -> None:
    for job in jobs:
        UsageEvent.objects.create(
            dedupe_key=f"{job.id}:1:1",
            site=job.site,
            job_id=job.id,
            attempt=1,
            call=1,
            provider="sim",
            outcome="ok",
            billable=True,
            input_tokens=30,
            output_tokens=7,
            cost_pico_usd=cost_pico_usd,
            price_version=price_version,
        )


def make_ended_batch(site: Site, state: str = "completed", **fields: Any) -> Batch:
    """An ended batch in which three requests failed."""
    frozen = {"completed": 1, "failed": 3, "canceled": 1, "expired": 1, "cost_pico_usd": 10**12, "total": 4}
    return make_batch(site, state=state, completed_at=Now(), **{**frozen, **fields})

"""Admission requests and windows with defaults for every field that a test is not about."""

import itertools
from typing import Any

from redis.asyncio import Redis

from core.tasks import BackgroundTasks
from tenants.rate_limiting import admission
from tenants.rate_limiting.scripts import SCRIPTS, Scripts
from tenants.rate_limiting.types import AdmissionOutcome, AdmissionRequest
from tenants.rate_limiting.windows import SlidingWindow

_numbers = itertools.count()
BODY = b"h" * 32
_background_tasks = BackgroundTasks()


async def admit(server: Redis, request: AdmissionRequest, scripts: Scripts = SCRIPTS) -> AdmissionOutcome:
    return await admission.admit(server, request, _background_tasks.spawn, scripts)


def make_request(site: str, *windows: SlidingWindow, **fields: Any) -> AdmissionRequest:
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "request_id": f"req_{number}",
        "tokens": 0,
        "concurrency": None,
        "lease_seconds": 30,
        "nonce": None,
        "idempotency_key": None,
        "body_hash": BODY,
        "stream_id": f"stm_{number}",
        "cache_key": None,
        "process": "prc_1",
        "open_usage_record": None,
    }
    return AdmissionRequest(site=site, windows=windows, **{**defaults, **fields})


def request_limit(limit: int, seconds: int = 60, name: str = "site") -> SlidingWindow:
    return SlidingWindow(name, "requests", limit, seconds)


def token_limit(limit: int, seconds: int = 60, name: str = "site") -> SlidingWindow:
    return SlidingWindow(name, "tokens", limit, seconds)

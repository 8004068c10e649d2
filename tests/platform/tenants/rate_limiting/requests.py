"""Admission requests and windows with defaults for every field that a test is not about."""

import itertools
from typing import Any

from tenants.rate_limiting.types import AdmissionRequest
from tenants.rate_limiting.windows import SlidingWindow

_numbers = itertools.count()
BODY = b"h" * 32


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

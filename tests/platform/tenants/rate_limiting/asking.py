"""Asks and windows, with what a test is not about filled in."""

import itertools
from typing import Any

from tenants.rate_limiting.types import AdmissionRequest
from tenants.rate_limiting.windows import SlidingWindow

_numbers = itertools.count()
BODY = b"h" * 32


def ask(site: str, *windows: SlidingWindow, **fields: Any) -> AdmissionRequest:
    number = next(_numbers)
    wanted: dict[str, Any] = {
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
    return AdmissionRequest(site=site, windows=windows, **{**wanted, **fields})


def requests(limit: int, seconds: int = 60, name: str = "site") -> SlidingWindow:
    return SlidingWindow(name, "requests", limit, seconds)


def tokens(limit: int, seconds: int = 60, name: str = "site") -> SlidingWindow:
    return SlidingWindow(name, "tokens", limit, seconds)

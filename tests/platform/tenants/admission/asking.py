"""Asks and windows, with what a test is not about filled in."""

import itertools
from typing import Any

from tenants.admission.asks import Ask
from tenants.admission.windows import Window

_numbers = itertools.count()
BODY = b"h" * 32


def ask(site: str, *windows: Window, **fields: Any) -> Ask:
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
        "open_account": None,
    }
    return Ask(site=site, windows=windows, **{**wanted, **fields})


def requests(limit: int, seconds: int = 60, name: str = "site") -> Window:
    return Window(name, "requests", limit, seconds)


def tokens(limit: int, seconds: int = 60, name: str = "site") -> Window:
    return Window(name, "tokens", limit, seconds)

"""Accounts of live calls, as they come into the buffer."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis

from metering import buffer
from metering.accounts import Account
from metering.buffer import to_entry
from metering.models import Outcome
from providers.types import Usage
from tenants.models import Site


def account(site: Site | UUID, number: int = 1, **facts: Any) -> Account:
    wanted: dict[str, Any] = {
        "dedupe_key": f"req_{number}:1",
        "site_id": site if isinstance(site, UUID) else site.id,
        "job_id": None,
        "attempt": None,
        "call": 1,
        "request_id": f"req_{number}",
        "provider": "openai",
        "price_list": "openai",
        "model": "chat",
        "upstream_model": "gpt-4o-mini",
        "started_at": datetime(2026, 11, 20, 8, 30, tzinfo=UTC),
        "outcome": Outcome.OK,
        "usage": Usage(100, 10),
        "billable": True,
    }
    return Account(**{**wanted, **facts})


def push(server: "redis.Redis", *accounts: Account) -> None:
    server.rpush(buffer.USAGE, *map(to_entry, accounts))

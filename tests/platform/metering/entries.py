"""Usage records of live calls, and a helper that puts them into the buffer."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis

from core.redis_keys import USAGE_RECORDS_KEY
from metering.buffer import encode_usage_record
from metering.models import UsageOutcome
from metering.usage_records import UsageRecord
from providers.types import Usage
from tenants.models import Site


def usage_record(site: Site | UUID, number: int = 1, **fields: Any) -> UsageRecord:
    defaults: dict[str, Any] = {
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
        "outcome": UsageOutcome.OK,
        "usage": Usage(100, 10),
        "billable": True,
    }
    return UsageRecord(**{**defaults, **fields})


def push(server: "redis.Redis", *records: UsageRecord) -> None:
    server.rpush(USAGE_RECORDS_KEY, *map(encode_usage_record, records))

"""Usage records: one per provider call, written as usage events before the call and after it. Writes are idempotent."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import connection
from msgspec import Struct

from metering.models import UsageEvent, UsageOutcome
from metering.prices import price_call
from providers.tiers import Tier
from providers.types import Usage


class UsageRecord(Struct, frozen=True):
    """One provider call before it is a row: every field of its usage event but the cost. An open call has no usage yet.

    A msgspec struct, like everything that is made per request: a frozen dataclass with as many fields takes five times
    as long to make.
    """

    dedupe_key: str
    site_id: UUID
    job_id: UUID | None
    attempt: int | None
    call: int
    request_id: str
    provider: str
    price_list: str
    model: str
    upstream_model: str
    started_at: datetime
    outcome: UsageOutcome = UsageOutcome.OPEN
    usage: Usage = Usage()
    estimated: bool = False
    billable: bool = False
    error_kind: str = ""
    error_code: str = ""
    http_status: int | None = None
    duration_ms: int | None = None
    first_token_ms: int | None = None
    #: The price tier: the one the provider used, or the requested one if that is not known.
    tier: Tier = Tier.STANDARD


#: Provider name in the record of an answer from the response cache: no provider was called.
CACHE_PROVIDER = "cache"

MAX_COUNT = 2**31 - 1
TOKEN_FIELDS = tuple(field.name for field in fields(Usage))


class UsageRow(Struct, frozen=True):
    """A usage record with its cost: a row of usage events, with fields named as the columns."""

    dedupe_key: str
    site_id: UUID
    job_id: UUID | None
    attempt: int | None
    call: int
    request_id: str
    provider: str
    price_list: str
    model: str
    upstream_model: str
    outcome: UsageOutcome
    error_kind: str
    error_code: str
    http_status: int | None
    billable: bool
    estimated: bool
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    tier: Tier
    cost_pico_usd: int
    price_version: str
    started_at: datetime
    duration_ms: int | None
    first_token_ms: int | None


#: Columns that the end of a call sets in the row that its start inserted.
COLUMNS_SET_ON_CLOSE = (
    "outcome",
    "error_kind",
    "error_code",
    "http_status",
    "billable",
    "estimated",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "tier",
    "cost_pico_usd",
    "price_version",
    "duration_ms",
    "first_token_ms",
)

_COLUMNS = ", ".join(UsageRow.__struct_fields__)

#: All rows as one JSON text, which both sides handle in C: with the ORM these rows took a fifth of a worker's time.
UPSERT = f"""
INSERT INTO metering_usageevent ({_COLUMNS})
SELECT {_COLUMNS} FROM json_populate_recordset(NULL::metering_usageevent, %s::json)
    ON CONFLICT (dedupe_key) DO UPDATE
   SET {", ".join(f"{name} = EXCLUDED.{name}" for name in COLUMNS_SET_ON_CLOSE)}
"""  # noqa: S608 (names of columns, from this file)

#: A closed call was reported after all, so it is not lost.
UPSERT_IF_OPEN = f"{UPSERT} WHERE metering_usageevent.outcome = 'open'"


def write(records: Sequence[UsageRecord]) -> None:
    """Insert or complete the usage events of the calls, in one statement."""
    _execute(UPSERT, records)


def write_lost(records: Sequence[UsageRecord]) -> None:
    """Insert or complete the usage events of lost calls. Closed events stay unchanged."""
    _execute(UPSERT_IF_OPEN, records)


def _execute(statement: str, records: Sequence[UsageRecord]) -> None:
    if not records:
        return
    rows = msgspec.json.encode([to_usage_row(record) for record in records])
    with connection.cursor() as cursor:
        cursor.execute(statement, [rows.decode()])


def write_fenced_out(records: Sequence[UsageRecord]) -> None:
    """Complete the usage events of calls whose attempt the writer no longer owns, in the caller's transaction.

    Closed events stay unchanged: a writer that does not know that its first write was committed writes again, and must
    not revoke the billing. Lost events are corrected: their usage is known now.
    """
    if not records:
        return
    keys = [record.dedupe_key for record in records]
    found = UsageEvent.objects.select_for_update().filter(dedupe_key__in=keys)
    closed = set(found.exclude(outcome__in=[UsageOutcome.OPEN, UsageOutcome.LOST]).values_list("dedupe_key", flat=True))
    write([record for record in records if record.dedupe_key not in closed])


def to_usage_row(record: UsageRecord) -> UsageRow:
    """Compute the cost of a call. If no price is known, the cost is 0 and the price version empty."""
    usage = clamp_usage(record.usage)
    cost_pico_usd, price_version = price_call(
        record.provider, record.price_list, record.upstream_model, record.started_at, usage, record.tier
    )
    return UsageRow(
        dedupe_key=record.dedupe_key,
        site_id=record.site_id,
        job_id=record.job_id,
        attempt=record.attempt,
        call=record.call,
        request_id=record.request_id,
        provider=record.provider,
        price_list=record.price_list,
        model=record.model,
        upstream_model=record.upstream_model,
        outcome=record.outcome,
        error_kind=record.error_kind,
        error_code=record.error_code[:100],
        http_status=record.http_status,
        billable=record.billable,
        estimated=record.estimated,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        tier=record.tier,
        cost_pico_usd=cost_pico_usd,
        price_version=price_version,
        started_at=record.started_at,
        duration_ms=record.duration_ms,
        first_token_ms=record.first_token_ms,
    )


def clamp_usage(usage: Usage) -> Usage:
    """Limit every count to the range of its column, so that invalid usage cannot keep a job from finishing."""
    counts = [getattr(usage, name) for name in TOKEN_FIELDS]
    if min(counts) >= 0 and max(counts) <= MAX_COUNT:
        return usage
    return Usage(*(min(max(count, 0), MAX_COUNT) for count in counts))

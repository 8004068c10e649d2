"""Write the account of calls: before they are made, and what became of them. Writing twice changes nothing."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import connection
from msgspec import Struct

from metering.models import Outcome, UsageEvent
from metering.prices import rate
from providers.tiers import Tier
from providers.types import Usage


class Account(Struct, frozen=True):
    """One call, with all that its usage event says. An open call has no usage yet.

    A struct, as all that is made for each request: a frozen dataclass of so many fields takes five times as long.
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
    outcome: Outcome = Outcome.OPEN
    usage: Usage = Usage()
    estimated: bool = False
    billable: bool = False
    error_kind: str = ""
    error_code: str = ""
    http_status: int | None = None
    duration_ms: int | None = None
    first_token_ms: int | None = None
    #: Which price holds: the tier that was used, or asked for where that is not known.
    tier: Tier = Tier.STANDARD


#: Stands for the provider in the account of an answer that was given again: nobody was called.
CACHE = "cache"

LARGEST_COUNT = 2**31 - 1
COUNTS = tuple(field.name for field in fields(Usage))


class UsageRow(Struct, frozen=True):
    """An account that has been rated: a row of usage events, its fields named as the columns."""

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
    outcome: Outcome
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


#: What the end of a call changes in the row that its beginning wrote.
WRITTEN_AT_THE_END = (
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

#: As one JSON text, which both sides handle in C: the ORM took a fifth of a worker's time to write these rows.
WRITE = f"""
INSERT INTO metering_usageevent ({_COLUMNS})
SELECT {_COLUMNS} FROM json_populate_recordset(NULL::metering_usageevent, %s::json)
    ON CONFLICT (dedupe_key) DO UPDATE
   SET {", ".join(f"{name} = EXCLUDED.{name}" for name in WRITTEN_AT_THE_END)}
"""  # noqa: S608 (names of columns, from this file)

#: What is closed was heard of after all.
WRITE_LOST = f"{WRITE} WHERE metering_usageevent.outcome = 'open'"


def write(accounts: Sequence[Account]) -> None:
    """Insert or complete the usage events of these calls, in one statement."""
    _write(WRITE, accounts)


def write_lost(accounts: Sequence[Account]) -> None:
    """Insert the usage events of calls that nobody reported on. Those that are closed stay as they are."""
    _write(WRITE_LOST, accounts)


def _write(statement: str, accounts: Sequence[Account]) -> None:
    if not accounts:
        return
    rows = msgspec.json.encode([to_row(account) for account in accounts])
    with connection.cursor() as cursor:
        cursor.execute(statement, [rows.decode()])


def write_late(accounts: Sequence[Account]) -> None:
    """Complete the usage events of calls whose attempt is no longer the writer's, in the caller's transaction.

    What was closed stays as it is: a writer who does not know that its first try was committed tries again,
    and must not take the bill back. What was taken for lost is corrected: now its usage is known.
    """
    if not accounts:
        return
    keys = [account.dedupe_key for account in accounts]
    found = UsageEvent.objects.select_for_update().filter(dedupe_key__in=keys)
    closed = set(found.exclude(outcome__in=[Outcome.OPEN, Outcome.LOST]).values_list("dedupe_key", flat=True))
    write([account for account in accounts if account.dedupe_key not in closed])


def to_row(account: Account) -> UsageRow:
    """Rate a call. Where no price is known the cost is 0, and the empty price version says why."""
    usage = bounded(account.usage)
    cost_pico_usd, price_version = rate(
        account.provider, account.price_list, account.upstream_model, account.started_at, usage, account.tier
    )
    return UsageRow(
        dedupe_key=account.dedupe_key,
        site_id=account.site_id,
        job_id=account.job_id,
        attempt=account.attempt,
        call=account.call,
        request_id=account.request_id,
        provider=account.provider,
        price_list=account.price_list,
        model=account.model,
        upstream_model=account.upstream_model,
        outcome=account.outcome,
        error_kind=account.error_kind,
        error_code=account.error_code[:100],
        http_status=account.http_status,
        billable=account.billable,
        estimated=account.estimated,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        tier=account.tier,
        cost_pico_usd=cost_pico_usd,
        price_version=price_version,
        started_at=account.started_at,
        duration_ms=account.duration_ms,
        first_token_ms=account.first_token_ms,
    )


def bounded(usage: Usage) -> Usage:
    """Return the usage with every count in the range of its column: no provider's nonsense keeps a job from ending."""
    counts = [getattr(usage, name) for name in COUNTS]
    if min(counts) >= 0 and max(counts) <= LARGEST_COUNT:
        return usage
    return Usage(*(min(max(count, 0), LARGEST_COUNT) for count in counts))

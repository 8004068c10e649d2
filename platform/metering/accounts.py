"""Write the account of calls: before they are made, and what became of them. Writing twice changes nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from uuid import UUID

from metering.models import Outcome, UsageEvent
from metering.prices import rate
from providers.types import Usage


@dataclass(frozen=True, slots=True)
class Account:
    """One call, with all that its usage event says. An open call has no usage yet."""

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


LARGEST_COUNT = 2**31 - 1

#: What the end of a call changes in the row that its beginning wrote.
WRITTEN_AT_THE_END = [
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
    "cost_pico_usd",
    "price_version",
    "duration_ms",
    "first_token_ms",
]


def write(accounts: Sequence[Account]) -> None:
    """Insert or complete the usage events of these calls, in one statement."""
    UsageEvent.objects.bulk_create(
        [to_event(account) for account in accounts],
        update_conflicts=True,
        unique_fields=["dedupe_key"],
        update_fields=WRITTEN_AT_THE_END,
    )


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


def to_event(account: Account) -> UsageEvent:
    """Rate a call. Where no price is known the cost is 0, and the empty price version says why."""
    usage = bounded(account.usage)
    cost_pico_usd, price_version = rate(
        account.provider, account.price_list, account.upstream_model, account.started_at, usage
    )
    return UsageEvent(
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
        started_at=account.started_at,
        outcome=account.outcome,
        error_kind=account.error_kind,
        error_code=account.error_code[:100],
        http_status=account.http_status,
        billable=account.billable,
        estimated=account.estimated,
        **asdict(usage),
        cost_pico_usd=cost_pico_usd,
        price_version=price_version,
        duration_ms=account.duration_ms,
        first_token_ms=account.first_token_ms,
    )


def bounded(usage: Usage) -> Usage:
    """Return the usage with every count in the range of its column: no provider's nonsense keeps a job from ending."""
    return Usage(**{field.name: min(max(getattr(usage, field.name), 0), LARGEST_COUNT) for field in fields(Usage)})

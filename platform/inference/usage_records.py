"""Converts calls to usage records: site, call, usage."""

from dataclasses import dataclass
from uuid import UUID

from msgspec import structs

from inference.calls import CallClosed, CallOpened
from metering.models import UsageOutcome
from metering.usage_records import UsageRecord
from providers.types import Usage

NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class UsageAttribution:
    """The site, and the job or request, that the usage of a call is attributed to."""

    site_id: UUID
    model: str
    request_id: str
    job_id: UUID | None = None
    attempt: int | None = None


def to_open_usage_record(attribution: UsageAttribution, call: CallOpened, usage: Usage = NO_USAGE) -> UsageRecord:
    """Return the usage record of a call that is about to be made, with the usage known so far."""
    return UsageRecord(
        dedupe_key=call.call_id,
        site_id=attribution.site_id,
        job_id=attribution.job_id,
        attempt=attribution.attempt,
        call=call.number,
        request_id=attribution.request_id,
        provider=call.target.provider.name,
        price_list=call.target.provider.price_list,
        model=attribution.model,
        upstream_model=call.target.upstream_model,
        started_at=call.started_at,
        usage=usage,
        tier=call.tier,
    )


def to_usage_record(attribution: UsageAttribution, call: CallClosed, *, billable: bool = False) -> UsageRecord:
    """Return the usage record of a call that has ended."""
    return structs.replace(
        to_open_usage_record(attribution, call.opened, call.usage),
        outcome=UsageOutcome(call.outcome.value),
        estimated=call.estimated,
        billable=billable,
        error_kind=call.error.kind if call.error else "",
        error_code=(call.error.code or "") if call.error else "",
        http_status=call.error.status if call.error else 200,
        duration_ms=call.duration_ms,
        first_token_ms=call.first_token_ms,
        tier=call.tier,
    )

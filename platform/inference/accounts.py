"""Translate calls into accounts: who asked, which call, what it used."""

from dataclasses import dataclass
from uuid import UUID

from msgspec import structs

from inference.calls import CallClosed, CallOpened
from metering.accounts import Account
from metering.models import Outcome
from providers.types import Usage

NONE_YET = Usage()


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is."""

    site_id: UUID
    model: str
    request_id: str
    job_id: UUID | None = None
    attempt: int | None = None


def to_open_account(asker: Asker, call: CallOpened, usage: Usage = NONE_YET) -> Account:
    """The account of a call that is about to be made, with what it is known to use already."""
    return Account(
        dedupe_key=call.call_id,
        site_id=asker.site_id,
        job_id=asker.job_id,
        attempt=asker.attempt,
        call=call.number,
        request_id=asker.request_id,
        provider=call.target.provider.name,
        price_list=call.target.provider.price_list,
        model=asker.model,
        upstream_model=call.target.upstream_model,
        started_at=call.started_at,
        usage=usage,
        tier=call.tier,
    )


def to_account(asker: Asker, call: CallClosed, *, billable: bool = False) -> Account:
    """The account of a call that ended."""
    return structs.replace(
        to_open_account(asker, call.opened, call.usage),
        outcome=Outcome(call.outcome.value),
        estimated=call.estimated,
        billable=billable,
        error_kind=call.error.kind if call.error else "",
        error_code=(call.error.code or "") if call.error else "",
        http_status=call.error.status if call.error else 200,
        duration_ms=call.duration_ms,
        first_token_ms=call.first_token_ms,
        tier=call.tier,
    )

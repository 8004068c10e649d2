"""Write down what an attempt has come to, unless another attempt has taken the delivery over."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from core.guarded_http import Answer, NoAnswer
from webhooks.claim import Claimed
from webhooks.judge import Canceled, Delivered, GaveUp, Gone, Outcome, RetryIn
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint
from webhooks.send import Exchange

log = structlog.get_logger(__name__)

GONE = "gone"


@transaction.atomic
def settle(claimed: Claimed, outcome: Outcome, exchange: Exchange | None) -> bool:
    """End the attempt. False, and nothing is written, if it is no longer the delivery's current one.

    A process that dies between the receiver's 2xx and this commit leaves the delivery pending, and it is sent again
    when its lease is over: at least once, always with the same event id.
    """
    if isinstance(outcome, Gone):
        # Always the endpoint before its deliveries, as in `disable`: two that are gone at once must not wait in a ring.
        Endpoint.objects.select_for_update(no_key=True).filter(id=claimed.endpoint_id).first()
    if not _current(claimed).update(**_changes(outcome, exchange)):
        log.warning("attempt_superseded", attempt=claimed.attempt)
        return False
    if exchange is not None:
        _write_log(claimed, outcome, exchange)
    if isinstance(outcome, Gone):
        disable(claimed.endpoint_id, GONE, outcome.reason)
    return True


@transaction.atomic
def disable(endpoint_id: Any, disabled_reason: str, why: str) -> None:
    """Send nothing more to an endpoint. What is on its way there is canceled."""
    Endpoint.objects.filter(id=endpoint_id).update(is_enabled=False, disabled_reason=disabled_reason)
    pending = Delivery.objects.filter(endpoint=endpoint_id, state=DeliveryState.PENDING)
    pending.update(state=DeliveryState.CANCELED, due_at=None, finished_at=Now(), last_error=why[:200])


def give_back(claims: Iterable[Claimed]) -> None:
    """Make deliveries due again whose attempts this process cannot end. The attempts count: they may have arrived."""
    for claimed in claims:
        _current(claimed).update(due_at=Now())


def _current(claimed: Claimed) -> QuerySet[Delivery]:
    """The delivery, as long as this attempt is its latest: the fence."""
    return Delivery.objects.filter(id=claimed.delivery_id, attempts=claimed.attempt, state=DeliveryState.PENDING)


def _changes(outcome: Outcome, exchange: Exchange | None) -> dict[str, Any]:
    seen = {"last_status": _status(exchange)} if exchange else {}
    match outcome:
        case Delivered():
            return {**seen, **_ended(DeliveryState.DELIVERED, "")}
        case RetryIn(delay, reason):
            return {**seen, "due_at": _from_now(delay), "last_error": reason[:200]}
        case GaveUp(reason):
            return {**seen, **_ended(DeliveryState.EXHAUSTED, reason)}
        case Gone(reason) | Canceled(reason):
            return {**seen, **_ended(DeliveryState.CANCELED, reason)}


def _ended(state: DeliveryState, reason: str) -> dict[str, Any]:
    return {"state": state, "due_at": None, "finished_at": Now(), "last_error": reason[:200]}


def _from_now(delay: timedelta) -> Any:
    return Now() + delay


def _status(exchange: Exchange) -> int | None:
    return exchange.answer.status if isinstance(exchange.answer, Answer) else None


def _write_log(claimed: Claimed, outcome: Outcome, exchange: Exchange) -> None:
    DeliveryAttempt.objects.create(
        delivery_id=claimed.delivery_id,
        number=claimed.attempt,
        started_at=claimed.claimed_at,
        duration_ms=exchange.duration_ms,
        status=_status(exchange),
        error="" if isinstance(outcome, Delivered) else outcome.reason[:200],
        response_head=_readable(exchange.answer),
    )


def _readable(answer: Answer | NoAnswer) -> str:
    """The answer's first characters, whatever bytes they were; Postgres keeps no NUL."""
    if isinstance(answer, NoAnswer):
        return ""
    return answer.head.decode("utf-8", errors="replace").replace("\0", "\ufffd")[:1000]

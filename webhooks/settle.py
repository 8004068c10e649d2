"""Records the outcomes of attempts. Fenced: only the latest attempt of a delivery may write."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from core.ids import to_public
from core.ssrf_guard import CappedResponse, NoResponse
from webhooks.claim import ClaimedDelivery
from webhooks.judge import Delivered, DeliveryCanceled, DeliveryExhausted, DeliveryOutcome, EndpointGone, RetryDelivery
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint
from webhooks.send import DeliveryExchange

log = structlog.get_logger(__name__)

GONE = "gone"


@dataclass(frozen=True, slots=True)
class DeliverySettlement:
    """The outcome of an attempt. Without an exchange nothing was sent."""

    claimed: ClaimedDelivery
    outcome: DeliveryOutcome
    exchange: DeliveryExchange | None = None

    @property
    def token(self) -> tuple[UUID, int]:
        """The fencing token."""
        return self.claimed.delivery_id, self.claimed.attempt


# The fence: only the delivery's latest attempt may write, and only while it is pending.
SETTLE = """
UPDATE webhooks_delivery delivery
   SET state = settled.state,
       due_at = CASE WHEN settled.state = 'pending' THEN clock_timestamp() + make_interval(secs => settled.delay) END,
       finished_at = CASE WHEN settled.state = 'pending' THEN NULL ELSE clock_timestamp() END,
       last_status = CASE WHEN settled.was_sent THEN settled.status ELSE delivery.last_status END,
       last_error = settled.error
  FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::float8[], %s::bool[], %s::int[], %s::text[])
       AS settled (id, attempt, state, delay, was_sent, status, error)
 WHERE delivery.id = settled.id AND delivery.attempts = settled.attempt AND delivery.state = 'pending'
RETURNING settled.id, settled.attempt
"""


def settle(claimed: ClaimedDelivery, outcome: DeliveryOutcome, exchange: DeliveryExchange | None) -> bool:
    """Record the outcome of one attempt; see `settle_all`."""
    return settle_all([DeliverySettlement(claimed, outcome, exchange)])[0]


def settle_all(settlements: Sequence[DeliverySettlement]) -> list[bool]:
    """Record the outcomes; return False for each attempt that was superseded, for which nothing is written.

    If the process dies between the receiver's 2xx and this commit, the delivery stays pending and is sent again when
    its lease expires: at least once, always with the same event id.
    """
    gone = [settlement for settlement in settlements if isinstance(settlement.outcome, EndpointGone)]
    others = [settlement for settlement in settlements if not isinstance(settlement.outcome, EndpointGone)]
    current = _write(others).union(*(_write_gone(settlement) for settlement in gone))
    for settlement in settlements:
        if settlement.token not in current:
            log.warning(
                "attempt_superseded",
                delivery=to_public(Delivery.ID_PREFIX, settlement.token[0]),
                attempt=settlement.token[1],
            )
    return [settlement.token in current for settlement in settlements]


@transaction.atomic
def _write_gone(settlement: DeliverySettlement) -> set[tuple[UUID, int]]:
    endpoint_id, outcome = settlement.claimed.endpoint_id, settlement.outcome
    # Lock order: the endpoint before its deliveries, as in `disable`, so that two concurrent 410s do not deadlock.
    Endpoint.objects.select_for_update(no_key=True).filter(id=endpoint_id).first()
    current = _write([settlement])
    if current and isinstance(outcome, EndpointGone):
        disable(endpoint_id, GONE, outcome.reason)
    return current


@transaction.atomic
def _write(settlements: Sequence[DeliverySettlement]) -> set[tuple[UUID, int]]:
    """Update the deliveries and insert the attempts; return the fencing tokens that were current."""
    if not settlements:
        return set()
    columns = zip(*(_values(settlement) for settlement in settlements), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(SETTLE, [list(column) for column in columns])
        current = set(cursor.fetchall())
    DeliveryAttempt.objects.bulk_create(
        [_to_attempt_row(s.claimed, s.outcome, s.exchange) for s in settlements if s.exchange and s.token in current]
    )
    return current


@transaction.atomic
def disable(endpoint_id: Any, disabled_reason: str, why: str) -> None:
    """Disable an endpoint and cancel its pending deliveries."""
    Endpoint.objects.filter(id=endpoint_id).update(is_enabled=False, disabled_reason=disabled_reason)
    pending = Delivery.objects.filter(endpoint=endpoint_id, state=DeliveryState.PENDING)
    pending.update(state=DeliveryState.CANCELED, due_at=None, finished_at=Now(), last_error=why[:200])


def release(claims: Iterable[ClaimedDelivery]) -> None:
    """Make claimed deliveries due again immediately. Their attempts count, because the receiver may have got them."""
    for claimed in claims:
        _current(claimed).update(due_at=Now())


def _current(claimed: ClaimedDelivery) -> QuerySet[Delivery]:
    """Return the delivery if this attempt is its latest: the fence."""
    return Delivery.objects.filter(id=claimed.delivery_id, attempts=claimed.attempt, state=DeliveryState.PENDING)


def _values(settlement: DeliverySettlement) -> tuple[Any, ...]:
    """Return the input row of SETTLE."""
    exchange = settlement.exchange
    state, delay, reason = state_after(settlement.outcome)
    status = _status(exchange) if exchange else None
    return *settlement.token, str(state), delay, exchange is not None, status, reason[:200]


def state_after(outcome: DeliveryOutcome) -> tuple[DeliveryState, float, str]:
    """Return the state that an outcome leads to, the seconds until the next attempt if there is one, and why."""
    match outcome:
        case Delivered():
            return DeliveryState.DELIVERED, 0.0, ""
        case RetryDelivery(delay, reason):
            return DeliveryState.PENDING, delay.total_seconds(), reason
        case DeliveryExhausted(reason):
            return DeliveryState.EXHAUSTED, 0.0, reason
        case EndpointGone(reason) | DeliveryCanceled(reason):
            return DeliveryState.CANCELED, 0.0, reason


def _status(exchange: DeliveryExchange) -> int | None:
    return exchange.response.status if isinstance(exchange.response, CappedResponse) else None


def _to_attempt_row(claimed: ClaimedDelivery, outcome: DeliveryOutcome, exchange: DeliveryExchange) -> DeliveryAttempt:
    return DeliveryAttempt(
        delivery_id=claimed.delivery_id,
        number=claimed.attempt,
        started_at=claimed.claimed_at,
        duration_ms=exchange.duration_ms,
        status=_status(exchange),
        error="" if isinstance(outcome, Delivered) else outcome.reason[:200],
        response_head=_response_head(exchange.response),
    )


def _response_head(response: CappedResponse | NoResponse) -> str:
    """Return the first characters of the response, with invalid bytes and NULs replaced: Postgres cannot store NUL."""
    if isinstance(response, NoResponse):
        return ""
    return response.head.decode("utf-8", errors="replace").replace("\0", "\ufffd")[:1000]

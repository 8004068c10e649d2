"""Decides the outcome of a delivery attempt from the response. Pure: it reads and writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from core.retry_after import parse_retry_after
from core.ssrf_guard import CappedResponse, NoResponse

#: Backoff before each attempt, with a fifth of jitter both ways. The last attempt is about 76 hours after the first.
RETRY_SCHEDULE = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER = 0.2
#: A receiver's `Retry-After` may extend the backoff up to this.
MAX_BACKOFF = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver answered 2xx. The status decides: an interrupted response body does not change it."""


@dataclass(frozen=True, slots=True)
class RetryDelivery:
    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryExhausted:
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointGone:
    """The receiver answered 410: it permanently refuses events, so the endpoint is disabled."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryCanceled:
    """Nothing was sent, because the endpoint was disabled."""

    reason: str


DeliveryOutcome: TypeAlias = Delivered | RetryDelivery | DeliveryExhausted | EndpointGone | DeliveryCanceled


def judge(
    response: CappedResponse | NoResponse, *, attempt: int, now: datetime, random: Callable[[], float]
) -> DeliveryOutcome:
    """Return the outcome of attempt number `attempt`, counted from 1. `random` returns numbers from 0 to 1.

    An address that the SSRF guard blocks is retried like any other failure, because DNS records are corrected and
    networks are allowed later. A URL with a literal blocked address was rejected when the endpoint was created.
    """
    match response:
        case CappedResponse(status=status) if 200 <= status < 300:
            return Delivered()
        case CappedResponse(status=410):
            return EndpointGone("The receiver answered 410 Gone.")
        case CappedResponse(status=status, headers=headers):
            floor = _retry_after_floor(headers.get("retry-after"), now)
            reason = _status_reason(status)
        case NoResponse():
            floor = timedelta(0)
            reason = str(response)
    if attempt >= len(RETRY_SCHEDULE):
        return DeliveryExhausted(reason)
    return RetryDelivery(min(max(with_jitter(RETRY_SCHEDULE[attempt], random()), floor), MAX_BACKOFF), reason)


def _retry_after_floor(value: str | None, now: datetime) -> timedelta:
    seconds = parse_retry_after(value, now) or 0.0
    return timedelta(seconds=min(seconds, MAX_BACKOFF.total_seconds()))


def _status_reason(status: int) -> str:
    if 300 <= status < 400:
        return f"The receiver answered {status}: a redirect, which is not followed. Set the URL to its target."
    return f"The receiver answered {status}."


def with_jitter(delay: timedelta, chance: float) -> timedelta:
    """Return the delay with up to a fifth of jitter, so that failures at one moment are not retried at one moment."""
    return delay * (1 - JITTER + 2 * JITTER * chance)

"""Decide what one attempt has come to. Nothing is done here."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from core.retry_after import parse_retry_after
from core.ssrf_guard import CappedResponse, NoResponse

#: The wait before each attempt; it is spread by a fifth to both sides. The last ends some 76 hours after the first.
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
#: A receiver may ask for more time than the schedule has, but not for more than this.
MAX_BACKOFF = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it. Its word is the status line; a body that broke off later changes nothing."""


@dataclass(frozen=True, slots=True)
class RetryDelivery:
    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryExhausted:
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointGone:
    """The receiver wants nothing more, now or later."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryCanceled:
    """Nothing was sent, for nobody wants it any more."""

    reason: str


DeliveryOutcome: TypeAlias = Delivered | RetryDelivery | DeliveryExhausted | EndpointGone | DeliveryCanceled


def judge(
    response: CappedResponse | NoResponse, *, attempt: int, now: datetime, random: Callable[[], float]
) -> DeliveryOutcome:
    """Decide what attempt number `attempt`, counted from 1, has come to. `random` gives numbers from 0 to 1.

    A blocked address is tried again like any failure: names are corrected, and networks allowed. A literal one was
    refused when the endpoint was made.
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
        return f"The receiver answered {status}, a redirect; these are not followed. Give its final address."
    return f"The receiver answered {status}."


def with_jitter(delay: timedelta, chance: float) -> timedelta:
    """Move the delay by up to a fifth, so that what failed together does not come back together."""
    return delay * (1 - JITTER + 2 * JITTER * chance)

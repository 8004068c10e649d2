"""Parser of the `Retry-After` header, for responses of providers and of webhook receivers."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds to wait: a number or the time until an HTTP date (RFC 9110, 10.2.3). None if it is neither.

    A date in the past is 0. There is no upper bound: callers apply their own.
    """
    if value is None:
        return None
    seconds = parse_seconds(value)
    return _seconds_until(value, now) if seconds is None else seconds


def parse_seconds(value: str | None) -> float | None:
    """Return a finite number that is not negative; None for any other text."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _seconds_until(http_date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return None

"""What both dialects share in reading an error: the status, when to come back, and words fit to be shown."""

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from core import clock
from providers.errors import (
    BadResponse,
    CredentialDead,
    ModelNotFound,
    Overloaded,
    ProviderError,
    RateLimited,
    Rejected,
    Transient,
)

#: A job waits as long as it is told to. What is longer is a mistake, or no wait.
RETRY_AFTER_MAX_SECONDS = 86_400.0
MESSAGE_CHARACTERS = 500
MASK = "[removed]"

#: Vendors' keys by their prefixes, bearer tokens, and any run of letters and digits as long as keys are.
#: OpenAI quotes half of a wrong key, with asterisks in the middle.
_KEY_SHAPES = re.compile(
    r"\b(?:sk|pk|nd|gsk|xai|whsec)[-_][\w*+/=-]{6,}|\bAIza[\w-]{10,}|(?i:bearer)\s+[^\s'\",]+"
    r"|\beyJ[\w-]+\.[\w.-]+|\b[A-Za-z0-9]{32,}"
)
_WORD = re.compile(r"^[\w.\-]{1,100}$")


def by_status(status: int) -> type[ProviderError]:
    """Return what a status alone means (wire formats, 18)."""
    match status:
        case 401 | 402 | 403:
            return CredentialDead
        case 404:
            # We call fixed addresses only, so what was not found is the model, or the target as a whole.
            return ModelNotFound
        case 408 | 409:
            return Transient
        case 429:
            return RateLimited
        case 503 | 529:
            return Overloaded
        case _ if 400 <= status < 500:
            return Rejected
        case _ if status >= 500:
            return Transient
        case _:
            # Neither an answer nor an error, such as a redirect.
            return BadResponse


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks us to wait, at most a day; None if it does not say."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(milliseconds / 1000, RETRY_AFTER_MAX_SECONDS)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value)
    return None if seconds is None else min(seconds, RETRY_AFTER_MAX_SECONDS)


def own_words(message: Any, status: int | None) -> str:
    """Return the provider's message, short and without keys, or our own words where it gave none."""
    if isinstance(message, str) and message.strip():
        return presentable(message)
    return "The provider reported an error without words." if status is None else f"The provider answered {status}."


def presentable(message: str) -> str:
    """Return a message on one line, short, and with everything masked that looks like a key."""
    # Trimmed first, generously: the patterns should not run over megabytes.
    masked = _KEY_SHAPES.sub(MASK, " ".join(message[: 8 * MESSAGE_CHARACTERS].replace("\0", " ").split()))
    return masked if len(masked) <= MESSAGE_CHARACTERS else masked[: MESSAGE_CHARACTERS - 1] + "…"


def code_word(value: Any) -> str | None:
    """Return a code as text, if it is one: a word or a number, not a sentence."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _WORD.match(text) else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _seconds_until(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - clock.now()).total_seconds())
    except (ValueError, OverflowError):
        return None

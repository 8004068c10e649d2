"""Mapping of provider errors that both dialects share: the status, `Retry-After`, and messages safe to show."""

import re
from collections.abc import Mapping
from typing import Any

from core import clock
from core.retry_after import parse_retry_after, parse_seconds
from providers.errors import (
    BadResponse,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    RequestRejected,
    TransientFailure,
)

#: A job waits as long as the provider says, up to this.
MAX_RETRY_AFTER_SECONDS = 86_400.0
MAX_MESSAGE_CHARACTERS = 500
REDACTED = "[redacted]"

#: Vendors' keys by their prefixes, bearer tokens, and any run of letters and digits as long as keys are.
#: OpenAI quotes half of a wrong key, with asterisks in the middle.
_KEY_SHAPES = re.compile(
    r"\b(?:sk|pk|nd|gsk|xai|whsec)[-_][\w*+/=-]{6,}|\bAIza[\w-]{10,}|(?i:bearer)\s+[^\s'\",]+"
    r"|\beyJ[\w-]+\.[\w.-]+|\b[A-Za-z0-9]{32,}"
)
_ERROR_CODE = re.compile(r"^[\w.\-]{1,100}$")


def error_class_for_status(status: int) -> type[ProviderError]:
    """Return the error class of a status (docs/reference/wire-formats.md, 18)."""
    match status:
        case 401 | 402 | 403:
            return ProviderKeyRejected
        case 404:
            # We call fixed paths only, so what was not found is the model, or the target as a whole.
            return ModelNotFound
        case 408 | 409:
            return TransientFailure
        case 429:
            return ProviderRateLimited
        case 503 | 529:
            return ProviderOverloaded
        case _ if 400 <= status < 500:
            return RequestRejected
        case _ if status >= 500:
            return TransientFailure
        case _:
            # Neither success nor an error, such as a redirect.
            return BadResponse


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks us to wait, at most a day; None if it does not say."""
    if (milliseconds := parse_seconds(headers.get("retry-after-ms"))) is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_SECONDS)
    seconds = parse_retry_after(headers.get("retry-after"), clock.now())
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_SECONDS)


def message_or_default(message: Any, status: int | None) -> str:
    """Return the provider's message, shortened and without keys, or our own if it sent none."""
    if isinstance(message, str) and message.strip():
        return redact(message)
    return (
        "The provider reported an error without a message."
        if status is None
        else f"The provider responded with status {status}."
    )


def redact(message: str) -> str:
    """Return a message on one line, shortened, with everything masked that looks like a key."""
    # Cut generously first, so that the patterns do not run over megabytes.
    masked = _KEY_SHAPES.sub(REDACTED, " ".join(message[: 8 * MAX_MESSAGE_CHARACTERS].replace("\0", " ").split()))
    return masked if len(masked) <= MAX_MESSAGE_CHARACTERS else masked[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def to_error_code(value: Any) -> str | None:
    """Return a code as text; None if it is not a word or a number."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _ERROR_CODE.match(text) else None

"""What Anthropic says when something is wrong (wire formats, 10 and 18)."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from providers.dialects.faults import by_status, code_word, own_words, retry_after_seconds
from providers.errors import (
    ContentRefused,
    ContextTooLong,
    CredentialDead,
    ModelNotFound,
    Overloaded,
    ProviderError,
    RateLimited,
    Rejected,
    Transient,
)

#: `api_error` is missing: it says no more than its status, which is 500 or 503.
_BY_TYPE: dict[str, type[ProviderError]] = {
    "invalid_request_error": Rejected,
    "authentication_error": CredentialDead,
    "billing_error": CredentialDead,
    "permission_error": CredentialDead,
    "not_found_error": ModelNotFound,
    "conflict_error": Transient,
    "request_too_large": Rejected,
    "rate_limit_error": RateLimited,
    "timeout_error": Transient,
    "overloaded_error": Overloaded,
}

#: A limit on money. With `retry-after` it ends by itself, without one it takes a person.
_SPEND_LIMITS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")

#: What stands in the sentence only, all under invalid_request_error.
_BY_SENTENCE: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (re.compile(r"(?i)credit balance|spend(ing)? limit|usage limits"), CredentialDead),
    (re.compile(r"(?i)prompt is too long|exceed context limit|context window"), ContextTooLong),
    (re.compile(r"(?i)content filtering policy"), ContentRefused),
)


class ErrorBody(Struct):
    """`error` of a body or a stream event. Any field may be of any type."""

    type: Any = None
    message: Any = None
    details: Any = None


class _Envelope(Struct):
    error: ErrorBody


def to_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Return what an answer with an error status means."""
    error = _read(body)
    retry_after = retry_after_seconds(headers)
    kind = _by_words(error, retry_after) or by_status(status)
    return kind(own_words(error.message, status), status=status, code=_code(error), retry_after_seconds=retry_after)


def to_stream_error(error: ErrorBody) -> ProviderError:
    """Return what an error event in a stream means."""
    kind = _by_words(error, None) or Transient
    return kind(own_words(error.message, None), code=_code(error))


def _read(body: bytes) -> ErrorBody:
    try:
        return msgspec.json.decode(body, type=_Envelope).error
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ErrorBody()


def _by_words(error: ErrorBody, retry_after: float | None) -> type[ProviderError] | None:
    if _detail_code(error) in _SPEND_LIMITS and retry_after is None:
        return CredentialDead
    if error.type == "invalid_request_error" and isinstance(error.message, str):
        for pattern, kind in _BY_SENTENCE:
            if pattern.search(error.message):
                return kind
    return _BY_TYPE.get(error.type) if isinstance(error.type, str) else None


def _detail_code(error: ErrorBody) -> Any:
    return error.details.get("error_code") if isinstance(error.details, dict) else None


def _code(error: ErrorBody) -> str | None:
    return code_word(_detail_code(error)) or code_word(error.type)

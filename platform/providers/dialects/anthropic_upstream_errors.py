"""Mapping of Anthropic's errors (docs/reference/wire-formats.md, 10 and 18)."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from providers.dialects.upstream_errors import (
    error_class_for_status,
    message_or_default,
    retry_after_seconds,
    to_error_code,
)
from providers.errors import (
    ContentRefused,
    ContextTooLong,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    RequestRejected,
    TransientFailure,
)

#: Without `api_error`, which says no more than its status, 500 or 503.
_CLASS_BY_TYPE: dict[str, type[ProviderError]] = {
    "invalid_request_error": RequestRejected,
    "authentication_error": ProviderKeyRejected,
    "billing_error": ProviderKeyRejected,
    "permission_error": ProviderKeyRejected,
    "not_found_error": ModelNotFound,
    "conflict_error": TransientFailure,
    "request_too_large": RequestRejected,
    "rate_limit_error": ProviderRateLimited,
    "timeout_error": TransientFailure,
    "overloaded_error": ProviderOverloaded,
}

#: Spend limits. With `retry-after` the limit resets by itself; without it a person must raise it.
_SPEND_LIMITS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")

#: Reported only in the message, all with the type invalid_request_error.
_CLASS_BY_MESSAGE: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (re.compile(r"(?i)credit balance|spend(ing)? limit|usage limits"), ProviderKeyRejected),
    (re.compile(r"(?i)prompt is too long|exceed context limit|context window"), ContextTooLong),
    (re.compile(r"(?i)content filtering policy"), ContentRefused),
)


class AnthropicErrorBody(Struct):
    """`error` of a body or a stream event. Any field may be of any type."""

    type: Any = None
    message: Any = None
    details: Any = None


class _Envelope(Struct):
    error: AnthropicErrorBody


def to_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Map a response with an error status."""
    error = _parse_error(body)
    retry_after = retry_after_seconds(headers)
    kind = _error_class(error, retry_after) or error_class_for_status(status)
    return kind(
        message_or_default(error.message, status), status=status, code=_code(error), retry_after_seconds=retry_after
    )


def to_stream_error(error: AnthropicErrorBody) -> ProviderError:
    """Map an error event in a stream."""
    kind = _error_class(error, None) or TransientFailure
    return kind(message_or_default(error.message, None), code=_code(error))


def _parse_error(body: bytes) -> AnthropicErrorBody:
    try:
        return msgspec.json.decode(body, type=_Envelope).error
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return AnthropicErrorBody()


def _error_class(error: AnthropicErrorBody, retry_after: float | None) -> type[ProviderError] | None:
    if _detail_code(error) in _SPEND_LIMITS and retry_after is None:
        return ProviderKeyRejected
    if error.type == "invalid_request_error" and isinstance(error.message, str):
        for pattern, kind in _CLASS_BY_MESSAGE:
            if pattern.search(error.message):
                return kind
    return _CLASS_BY_TYPE.get(error.type) if isinstance(error.type, str) else None


def _detail_code(error: AnthropicErrorBody) -> Any:
    return error.details.get("error_code") if isinstance(error.details, dict) else None


def _code(error: AnthropicErrorBody) -> str | None:
    return to_error_code(_detail_code(error)) or to_error_code(error.type)

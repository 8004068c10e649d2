"""Mapping of the errors of OpenAI, Azure and compatible servers (docs/reference/wire-formats.md, 1.2, 9, 18)."""

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

#: The code takes precedence over the status: 429 may mean a rate limit, an overload or exhausted credit.
_CLASS_BY_CODE: dict[str, type[ProviderError]] = {
    "insufficient_quota": ProviderKeyRejected,
    "credit_balance_exhausted": ProviderKeyRejected,
    "organization_spend_limit_exceeded": ProviderKeyRejected,
    "project_spend_limit_exceeded": ProviderKeyRejected,
    "organization_usage_limit_exceeded": ProviderKeyRejected,
    "billing_hard_limit_reached": ProviderKeyRejected,
    "billing_not_active": ProviderKeyRejected,
    "account_deactivated": ProviderKeyRejected,
    "access_terminated": ProviderKeyRejected,
    "invalid_api_key": ProviderKeyRejected,
    "unsupported_country_region_territory": ProviderKeyRejected,
    "rate_limit_exceeded": ProviderRateLimited,
    "RateLimitReached": ProviderRateLimited,
    "slow_down": ProviderOverloaded,
    "server_is_overloaded": ProviderOverloaded,
    "service_unavailable_error": ProviderOverloaded,
    "overloaded_error": ProviderOverloaded,
    "model_not_found": ModelNotFound,
    "DeploymentNotFound": ModelNotFound,
    "context_length_exceeded": ContextTooLong,
    "content_filter": ContentRefused,
    "content_policy_violation": ContentRefused,
    "ResponsibleAIPolicyViolation": ContentRefused,
    "invalid_prompt": ContentRefused,
    "bio_policy": ContentRefused,
    "misalignment_policy_violation": ContentRefused,
}

#: Error types that help if there is no status, as in a stream.
_CLASS_BY_STREAM_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": ProviderKeyRejected,
    "rate_limit_error": ProviderRateLimited,
    "requests": ProviderRateLimited,
    "tokens": ProviderRateLimited,
    "invalid_request_error": RequestRejected,
}

#: Compatible servers report this only in the message.
_CONTEXT_LENGTH_MESSAGE = re.compile(
    r"(?i)context (length|window|size)|too many (input )?tokens|(prompt|input) is too long"
)


class OpenAIErrorBody(Struct):
    """`error` of a body, a stream frame, or (compatible servers) the body itself. Any field may be of any type."""

    message: Any = None
    type: Any = None
    code: Any = None
    innererror: Any = None


class _Envelope(Struct):
    error: OpenAIErrorBody | str | None = None
    message: Any = None
    type: Any = None
    code: Any = None
    detail: Any = None


def to_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Map a response with an error status."""
    error = _parse_error(body)
    kind = _class_by_code(error) or _class_by_message(status, error) or error_class_for_status(status)
    return kind(
        message_or_default(error.message, status),
        status=status,
        code=_code(error),
        retry_after_seconds=retry_after_seconds(headers),
    )


def to_stream_error(error: OpenAIErrorBody | str) -> ProviderError:
    """Map an error in a stream, or in a response with status 200."""
    error = OpenAIErrorBody(error) if isinstance(error, str) else error
    kind = _class_by_code(error) or _CLASS_BY_STREAM_TYPE.get(to_error_code(error.type) or "", TransientFailure)
    return kind(message_or_default(error.message, None), code=_code(error))


def _parse_error(body: bytes) -> OpenAIErrorBody:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return OpenAIErrorBody()
    if isinstance(envelope.error, OpenAIErrorBody):
        return envelope.error
    return OpenAIErrorBody(envelope.error or envelope.message or envelope.detail, envelope.type, envelope.code)


def _class_by_code(error: OpenAIErrorBody) -> type[ProviderError] | None:
    for code in _code_candidates(error):
        if isinstance(code, str) and (kind := _CLASS_BY_CODE.get(code)):
            return kind
    return None


def _class_by_message(status: int, error: OpenAIErrorBody) -> type[ProviderError] | None:
    if status in (400, 413, 422) and isinstance(error.message, str) and _CONTEXT_LENGTH_MESSAGE.search(error.message):
        return ContextTooLong
    return None


def _code(error: OpenAIErrorBody) -> str | None:
    return next(filter(None, map(to_error_code, _code_candidates(error))), None)


def _code_candidates(error: OpenAIErrorBody) -> tuple[Any, Any, Any]:
    """Return the fields that may hold the error code, the most specific first."""
    inner = error.innererror.get("code") if isinstance(error.innererror, dict) else None
    return inner, error.code, error.type

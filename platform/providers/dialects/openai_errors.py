"""What OpenAI's dialect says when something is wrong; Azure and compatible servers too (wire formats, 1.2, 9, 18)."""

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

#: The code decides before the status: 429 may mean "wait", "slow down" or "no money left".
_BY_WORD: dict[str, type[ProviderError]] = {
    "insufficient_quota": CredentialDead,
    "credit_balance_exhausted": CredentialDead,
    "organization_spend_limit_exceeded": CredentialDead,
    "project_spend_limit_exceeded": CredentialDead,
    "organization_usage_limit_exceeded": CredentialDead,
    "billing_hard_limit_reached": CredentialDead,
    "billing_not_active": CredentialDead,
    "account_deactivated": CredentialDead,
    "access_terminated": CredentialDead,
    "invalid_api_key": CredentialDead,
    "unsupported_country_region_territory": CredentialDead,
    "rate_limit_exceeded": RateLimited,
    "RateLimitReached": RateLimited,
    "slow_down": Overloaded,
    "server_is_overloaded": Overloaded,
    "service_unavailable_error": Overloaded,
    "overloaded_error": Overloaded,
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

#: Types that say more than nothing where there is no status, as in a stream.
_BY_STREAM_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": CredentialDead,
    "rate_limit_error": RateLimited,
    "requests": RateLimited,
    "tokens": RateLimited,
    "invalid_request_error": Rejected,
}

#: Compatible servers say it in a sentence only.
_CONTEXT_SENTENCE = re.compile(r"(?i)context (length|window|size)|too many (input )?tokens|(prompt|input) is too long")


class ErrorBody(Struct):
    """`error` of a body, a stream frame, or (compatible servers) the body itself. Any field may be of any type."""

    message: Any = None
    type: Any = None
    code: Any = None
    innererror: Any = None


class _Envelope(Struct):
    error: ErrorBody | str | None = None
    message: Any = None
    type: Any = None
    code: Any = None
    detail: Any = None


def to_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Return what an answer with an error status means."""
    error = _read(body)
    kind = _by_words(error) or _by_sentence(status, error) or by_status(status)
    return kind(
        own_words(error.message, status),
        status=status,
        code=_code(error),
        retry_after_seconds=retry_after_seconds(headers),
    )


def to_stream_error(error: ErrorBody | str) -> ProviderError:
    """Return what an error in a stream or in an answer with status 200 means."""
    error = ErrorBody(error) if isinstance(error, str) else error
    kind = _by_words(error) or _BY_STREAM_TYPE.get(code_word(error.type) or "", Transient)
    return kind(own_words(error.message, None), code=_code(error))


def _read(body: bytes) -> ErrorBody:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ErrorBody()
    if isinstance(envelope.error, ErrorBody):
        return envelope.error
    return ErrorBody(envelope.error or envelope.message or envelope.detail, envelope.type, envelope.code)


def _by_words(error: ErrorBody) -> type[ProviderError] | None:
    for word in _words(error):
        if isinstance(word, str) and (kind := _BY_WORD.get(word)):
            return kind
    return None


def _by_sentence(status: int, error: ErrorBody) -> type[ProviderError] | None:
    if status in (400, 413, 422) and isinstance(error.message, str) and _CONTEXT_SENTENCE.search(error.message):
        return ContextTooLong
    return None


def _code(error: ErrorBody) -> str | None:
    return next(filter(None, map(code_word, _words(error))), None)


def _words(error: ErrorBody) -> tuple[Any, Any, Any]:
    """Return what may name the error, the most exact first."""
    inner = error.innererror.get("code") if isinstance(error.innererror, dict) else None
    return inner, error.code, error.type

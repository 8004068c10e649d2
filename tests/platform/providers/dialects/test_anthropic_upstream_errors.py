"""Mapping of Anthropic's errors (docs/reference/wire-formats.md, 10 and 18)."""

import json
from typing import Any

import pytest

from providers.dialects.anthropic_upstream_errors import to_error
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


def error_of(status: int, kind: str, message: str = "", headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}
    return to_error(status, headers or {}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "word", "message", "kind"),
    [
        (400, "invalid_request_error", "max_tokens: Field required", RequestRejected),
        (400, "invalid_request_error", "Your credit balance is too low to access the API.", ProviderKeyRejected),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", ProviderKeyRejected),
        (400, "invalid_request_error", "This workspace's spend limit has been reached.", ProviderKeyRejected),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextTooLong),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit", ContextTooLong),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentRefused),
        (401, "authentication_error", "invalid x-api-key", ProviderKeyRejected),
        (402, "billing_error", "", ProviderKeyRejected),
        (403, "permission_error", "", ProviderKeyRejected),
        (404, "not_found_error", "model: claude-x", ModelNotFound),
        (409, "conflict_error", "", TransientFailure),
        (413, "request_too_large", "", RequestRejected),
        (429, "rate_limit_error", "", ProviderRateLimited),
        (500, "api_error", "", TransientFailure),
        (503, "api_error", "", ProviderOverloaded),
        (504, "timeout_error", "", TransientFailure),
        (529, "overloaded_error", "Overloaded", ProviderOverloaded),
        (529, "something_new", "", ProviderOverloaded),
        (418, "something_new", "", RequestRejected),
    ],
)
def test_type_and_message_take_precedence_over_the_status(
    status: int, word: str, message: str, kind: type[ProviderError]
) -> None:
    assert type(error_of(status, word, message)) is kind


@pytest.mark.parametrize("code", ["enforced_spend_limit_reached", "contract_spend_limit_reached"])
def test_a_spend_limit_rejects_the_key_unless_it_has_retry_after(code: str) -> None:
    details = {"error_code": code}

    without = error_of(429, "rate_limit_error", details=details)
    having = error_of(429, "rate_limit_error", details=details, headers={"retry-after": "30"})

    assert (type(without), without.code) == (ProviderKeyRejected, code)
    assert (type(having), having.retry_after_seconds) == (ProviderRateLimited, 30)


def test_an_acceleration_limit_is_a_rate_limit() -> None:
    error = error_of(429, "rate_limit_error", details={"error_code": "ramp_limit_exceeded"})

    assert type(error) is ProviderRateLimited
    assert error.code == "ramp_limit_exceeded"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"type": 3, "details": "x"}}'])
def test_an_invalid_error_body_is_classified_by_status(body: bytes) -> None:
    error = to_error(502, {}, body)

    assert type(error) is TransientFailure
    assert error.message == "The provider responded with status 502."

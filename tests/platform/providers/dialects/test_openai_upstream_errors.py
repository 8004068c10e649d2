"""Mapping of the errors of OpenAI's dialect (docs/reference/wire-formats.md, 1.2, 9 and 18)."""

import json
from typing import Any

import pytest

from providers.dialects.openai_upstream_errors import to_error
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


def error_of(status: int, error: Any, **headers: str) -> ProviderError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return to_error(status, named, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        # One status with four meanings.
        (429, {"type": "requests", "code": "rate_limit_exceeded"}, ProviderRateLimited),
        (429, {"type": "tokens", "code": None}, ProviderRateLimited),
        (429, {"type": "rate_limit_error", "code": "slow_down"}, ProviderOverloaded),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, ProviderKeyRejected),
        (429, {"type": "insufficient_quota", "code": None}, ProviderKeyRejected),
        (429, {"code": "credit_balance_exhausted"}, ProviderKeyRejected),
        (429, {"code": "organization_spend_limit_exceeded"}, ProviderKeyRejected),
        (429, {"code": "project_spend_limit_exceeded"}, ProviderKeyRejected),
        (429, {"code": "organization_usage_limit_exceeded"}, ProviderKeyRejected),
        (503, {"type": "service_unavailable_error", "code": "server_is_overloaded"}, ProviderOverloaded),
        (500, {"type": "server_error", "code": None}, TransientFailure),
        (400, {"type": "invalid_request_error", "code": None}, RequestRejected),
        (400, {"type": "invalid_request_error", "code": "unsupported_value"}, RequestRejected),
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (400, {"code": "content_policy_violation"}, ContentRefused),
        (401, {"code": "invalid_api_key"}, ProviderKeyRejected),
        (403, {"code": "unsupported_country_region_territory"}, ProviderKeyRejected),
        # No access to a model is not a rejected key.
        (403, {"code": "model_not_found"}, ModelNotFound),
        (404, {"code": "model_not_found"}, ModelNotFound),
        # Azure
        (
            400,
            {
                "code": "content_filter",
                "param": "prompt",
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            },
            ContentRefused,
        ),
        (429, {"code": "429"}, ProviderRateLimited),
        (429, {"code": "RateLimitReached"}, ProviderRateLimited),
        (404, {"code": "DeploymentNotFound"}, ModelNotFound),
        (401, {"code": "401"}, ProviderKeyRejected),
        # Compatible servers
        (400, {"message": "This model's maximum context length is 8192 tokens.", "code": 400}, ContextTooLong),
        (400, {"message": "maximum tokens reached", "innererror": "odd", "code": {"a": 1}}, RequestRejected),
        (413, {"message": "Request too large", "code": "rate_limit_exceeded"}, ProviderRateLimited),
    ],
)
def test_the_error_code_takes_precedence_over_the_status(status: int, error: Any, kind: type[ProviderError]) -> None:
    assert type(error_of(status, error)) is kind


WITHOUT_MESSAGE = "The provider responded with status 418."


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "No.", "code": "x"}}', "No.", "x"),
        (b'{"error": {"message": "No.", "type": "t"}}', "No.", "t"),
        (b'{"error": {"message": "No.", "code": 42901}}', "No.", "42901"),
        (b'{"error": "No."}', "No.", None),
        (b'{"object": "error", "message": "No.", "type": "NotFoundError", "code": 404}', "No.", "404"),
        (b'{"detail": "No."}', "No.", None),
        (
            b'{"error": {"message": {"odd": 1}, "code": "a sentence, not a code"}}',
            WITHOUT_MESSAGE,
            None,
        ),
        (b"<html>No.</html>", WITHOUT_MESSAGE, None),
        (b"", WITHOUT_MESSAGE, None),
        (b"[]", WITHOUT_MESSAGE, None),
        (b"[" * 9999, WITHOUT_MESSAGE, None),
    ],
)
def test_message_and_code_are_found_wherever_servers_put_them(body: bytes, message: str, code: str | None) -> None:
    error = to_error(418, {}, body)

    assert (error.message, error.code, error.status) == (message, code, 418)


def test_azure_s_inner_error_code_is_kept() -> None:
    error = error_of(400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}})

    assert error.code == "ResponsibleAIPolicyViolation"


def test_the_error_carries_retry_after() -> None:
    assert error_of(429, {"code": "rate_limit_exceeded"}, retry_after_ms="250").retry_after_seconds == 0.25

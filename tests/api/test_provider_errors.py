"""API errors for errors of providers (live requests)."""

import pytest

from api.errors import to_problem
from live.errors import ConcurrencyLimitExceeded, RateLimitExceeded
from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ContentRefused,
    ContextTooLong,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    RequestRejected,
    ResponseInterrupted,
    TransientFailure,
    UnsupportedFeature,
)
from providers.invalid_request import InvalidRequest


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (RequestRejected, 400, "rejected"),
        (ModelNotFound, 404, "model_not_found"),
        (ContextTooLong, 400, "context_length_exceeded"),
        (UnsupportedFeature, 400, "unsupported_value"),
        (ContentRefused, 400, "content_policy_violation"),
        (ProviderKeyRejected, 503, "no_provider"),
        (ProviderRateLimited, 429, "rate_limit_exceeded"),
        (ProviderOverloaded, 503, "server_is_overloaded"),
        (TransientFailure, 502, "upstream_error"),
        (AmbiguousOutcome, 502, "upstream_error"),
        (ProviderTimeout, 504, "upstream_timeout"),
        (ResponseInterrupted, 502, "upstream_stream_interrupted"),
        (BadResponse, 502, "upstream_error"),
    ],
)
def test_a_provider_error_maps_to_its_status_and_code(kind: type[ProviderError], status: int, code: str) -> None:
    problem = to_problem(kind("What the provider said."))

    assert (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestRejected("no", status=413), 413),
        (RequestRejected("no", status=422), 422),
        (RequestRejected("no", status=451), 400),
        (ContextTooLong("no", status=413), 400),
        (TransientFailure("no", status=504), 504),
        (TransientFailure("no", status=500), 502),
    ],
)
def test_provider_statuses_with_their_own_sdk_exception_are_passed_through(error: ProviderError, status: int) -> None:
    assert to_problem(error).status == status


def test_the_message_of_a_rejected_key_is_not_the_providers() -> None:
    assert "sk-" not in to_problem(ProviderKeyRejected("Incorrect API key provided: sk-abc")).message


def test_a_providers_retry_after_is_passed_through() -> None:
    assert to_problem(ProviderRateLimited("slow", retry_after_seconds=12.2)).retry_after_seconds == 13


@pytest.mark.parametrize(("wait", "seconds"), [(0.0, 1), (0.4, 1), (59.01, 60)])
def test_retry_after_is_rounded_up_to_whole_seconds(wait: float, seconds: int) -> None:
    assert to_problem(RateLimitExceeded("no", wait)).retry_after_seconds == seconds


def test_the_concurrency_limit_has_its_own_code() -> None:
    assert to_problem(ConcurrencyLimitExceeded("no", 1)).code == "concurrency_limit_exceeded"


def test_an_invalid_body_keeps_the_code_and_param_of_the_dialect() -> None:
    problem = to_problem(InvalidRequest("bad", "messages.0", "missing_required_parameter"))

    assert (problem.status, problem.code, problem.param) == (400, "missing_required_parameter", "messages.0")

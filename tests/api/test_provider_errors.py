"""What a provider's error is to whoever asked live."""

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
def test_a_provider_s_error_is_told_with_its_status(kind: type[ProviderError], status: int, code: str) -> None:
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
def test_a_status_is_passed_on_where_sdks_have_an_error_of_its_own(error: ProviderError, status: int) -> None:
    assert to_problem(error).status == status


def test_a_dead_key_is_not_told_in_the_provider_s_words() -> None:
    assert "sk-" not in to_problem(ProviderKeyRejected("Incorrect API key provided: sk-abc")).message


def test_a_provider_s_wait_is_passed_on() -> None:
    assert to_problem(ProviderRateLimited("slow", retry_after_seconds=12.2)).retry_after_seconds == 13


@pytest.mark.parametrize(("wait", "told"), [(0.0, 1), (0.4, 1), (59.01, 60)])
def test_a_limit_says_when_to_come_back_in_whole_seconds(wait: float, told: int) -> None:
    assert to_problem(RateLimitExceeded("no", wait)).retry_after_seconds == told


def test_too_many_at_once_has_a_code_of_its_own() -> None:
    assert to_problem(ConcurrencyLimitExceeded("no", 1)).code == "concurrency_limit_exceeded"


def test_a_mistake_in_the_body_keeps_the_dialect_s_code_and_place() -> None:
    problem = to_problem(InvalidRequest("bad", "messages.0", "missing_required_parameter"))

    assert (problem.status, problem.code, problem.param) == (400, "missing_required_parameter", "messages.0")

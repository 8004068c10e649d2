"""What a provider's error is to whoever asked live."""

import pytest

from api.errors import LimitReached, TooManyAtOnce, problem_of
from providers.dialects.errors import InvalidRequest
from providers.errors import (
    Ambiguous,
    BadResponse,
    ContentRefused,
    ContextTooLong,
    CredentialDead,
    Interrupted,
    ModelNotFound,
    Overloaded,
    ProviderError,
    RateLimited,
    Rejected,
    TimedOut,
    Transient,
    Unsupported,
)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Rejected, 400, "rejected"),
        (ModelNotFound, 404, "model_not_found"),
        (ContextTooLong, 400, "context_length_exceeded"),
        (Unsupported, 400, "unsupported_value"),
        (ContentRefused, 400, "content_policy_violation"),
        (CredentialDead, 503, "no_provider"),
        (RateLimited, 429, "rate_limit_exceeded"),
        (Overloaded, 503, "server_is_overloaded"),
        (Transient, 502, "upstream_error"),
        (Ambiguous, 502, "upstream_error"),
        (TimedOut, 504, "upstream_timeout"),
        (Interrupted, 502, "upstream_stream_interrupted"),
        (BadResponse, 502, "upstream_error"),
    ],
)
def test_a_provider_s_error_is_told_with_its_status(kind: type[ProviderError], status: int, code: str) -> None:
    problem = problem_of(kind("What the provider said."))

    assert (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("no", status=413), 413),
        (Rejected("no", status=422), 422),
        (Rejected("no", status=451), 400),
        (ContextTooLong("no", status=413), 400),
        (Transient("no", status=504), 504),
        (Transient("no", status=500), 502),
    ],
)
def test_a_status_is_passed_on_where_sdks_have_an_error_of_its_own(error: ProviderError, status: int) -> None:
    assert problem_of(error).status == status


def test_a_dead_key_is_not_told_in_the_provider_s_words() -> None:
    assert "sk-" not in problem_of(CredentialDead("Incorrect API key provided: sk-abc")).message


def test_a_provider_s_wait_is_passed_on() -> None:
    assert problem_of(RateLimited("slow", retry_after_seconds=12.2)).retry_after_seconds == 13


@pytest.mark.parametrize(("wait", "told"), [(0.0, 1), (0.4, 1), (59.01, 60)])
def test_a_limit_says_when_to_come_back_in_whole_seconds(wait: float, told: int) -> None:
    assert problem_of(LimitReached("no", wait)).retry_after_seconds == told


def test_too_many_at_once_has_a_code_of_its_own() -> None:
    assert problem_of(TooManyAtOnce("no", 1)).code == "too_many_at_once"


def test_a_mistake_in_the_body_keeps_the_dialect_s_code_and_place() -> None:
    problem = problem_of(InvalidRequest("bad", "messages.0", "missing_required_parameter"))

    assert (problem.status, problem.code, problem.param) == (400, "missing_required_parameter", "messages.0")

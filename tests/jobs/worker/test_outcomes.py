"""Decisions after an attempt in which no target answered."""

import random

import pytest

from inference.complete import Exhausted
from jobs.worker.outcomes import (
    PROVIDERS_IN_COOLDOWN,
    AttemptFailed,
    AttemptReleased,
    JobRetryPolicy,
    RetryAfterBackoff,
    decide_retry,
    defer,
)
from providers import errors


def rule(errors_so_far: int = 0, max_attempts: int = 3) -> JobRetryPolicy:
    return JobRetryPolicy(errors_so_far, max_attempts, base_seconds=2, cap_seconds=300)


def ending(unanswered: Exhausted, given: JobRetryPolicy) -> RetryAfterBackoff | AttemptFailed:
    return decide_retry(unanswered, given, random.Random(3))


def test_a_transient_error_is_retried_after_a_backoff() -> None:
    result = ending(Exhausted(errors.ProviderOverloaded("busy", 503), retryable=True), rule())

    assert isinstance(result, RetryAfterBackoff)
    assert 0 <= result.seconds <= 2
    assert (result.error_code, result.error_message) == ("overloaded", "busy")


@pytest.mark.parametrize("errors_so_far", [0, 1, 5])
def test_the_next_attempt_is_never_before_the_providers_retry_after(errors_so_far: int) -> None:
    result = ending(
        Exhausted(errors.ProviderRateLimited("slow", 429), retryable=True, retry_after_seconds=40),
        rule(errors_so_far, 10),
    )

    assert isinstance(result, RetryAfterBackoff)
    assert result.seconds >= 40


def test_a_permanent_error_fails_the_job_with_the_providers_message() -> None:
    refused = Exhausted(errors.RequestRejected("`temperature` must be below 2.", 400), retryable=False)

    assert ending(refused, rule()) == AttemptFailed("rejected", "`temperature` must be below 2.")


def test_the_last_attempt_is_not_followed_by_another() -> None:
    result = ending(Exhausted(errors.TransientFailure("reset", None), retryable=True), rule(2))

    assert result == AttemptFailed("exhausted", "3 attempts failed; the last: reset")


@pytest.mark.parametrize(
    ("times", "least", "most"), [(0, 5, 30), (1, 10, 60), (4, 80, 480), (5, 80, 480), (9**9, 80, 480)]
)
def test_the_delay_of_a_deferred_job_doubles(times: int, least: float, most: float) -> None:
    waits = [defer(times, random.Random(seed)).seconds for seed in range(50)]

    assert least <= min(waits) < 1.5 * least
    assert most * 0.9 < max(waits) <= most


def test_a_job_deferred_for_a_provider_waits_at_least_its_cooldown() -> None:
    assert defer(0, random.Random(1), PROVIDERS_IN_COOLDOWN, 200.0) == AttemptReleased(200.0, "providers_in_cooldown")

"""The retry policy: retry, fail over, or stop."""

import random

import pytest

from inference.retry_policy import (
    BACKOFF_CAP_SECONDS,
    MAX_CALLS,
    MAX_TRIES_PER_TARGET,
    MAX_WAIT_SECONDS,
    FailoverStep,
    RetrySameTarget,
    StopTrying,
    TryNextTarget,
    backoff,
    decide_next_step,
)
from providers import errors
from providers.errors import ProviderError


def step(
    error: ProviderError, *, tries: int = 1, calls: int = 1, has_next: bool = False, left: float = 60
) -> FailoverStep:
    return decide_next_step(
        error, tries=tries, calls=calls, has_next=has_next, remaining_seconds=left, rng=random.Random(7)
    )


@pytest.mark.parametrize("kind", [errors.TransientFailure, errors.ProviderOverloaded])
@pytest.mark.parametrize("has_next", [True, False])
def test_a_transient_failure_is_retried_at_the_same_target(kind: type[ProviderError], has_next: bool) -> None:
    assert isinstance(step(kind("busy", status=503), has_next=has_next), RetrySameTarget)


@pytest.mark.parametrize(
    "kind", [errors.TransientFailure, errors.ProviderOverloaded, errors.BadResponse, errors.ResponseInterrupted]
)
def test_a_request_fails_over_after_the_maximum_of_tries(kind: type[ProviderError]) -> None:
    assert step(kind("busy"), tries=MAX_TRIES_PER_TARGET, has_next=True) == TryNextTarget()
    assert step(kind("busy"), tries=MAX_TRIES_PER_TARGET) == StopTrying()


@pytest.mark.parametrize(
    "kind", [errors.ProviderRateLimited, errors.ProviderTimeout, errors.AmbiguousOutcome, errors.ProviderKeyRejected]
)
def test_rate_limited_rejected_and_ambiguous_calls_fail_over_immediately(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == TryNextTarget()


def test_a_rejected_key_without_another_target_stops() -> None:
    assert step(errors.ProviderKeyRejected("no")) == StopTrying()


@pytest.mark.parametrize("has_next", [True, False])
@pytest.mark.parametrize("kind", [errors.RequestRejected, errors.ContentRefused])
def test_a_rejected_request_never_fails_over(kind: type[ProviderError], has_next: bool) -> None:
    assert step(kind("bad"), has_next=has_next) == StopTrying()


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.ContextTooLong])
def test_a_missing_or_too_small_model_fails_over(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == TryNextTarget()
    assert step(kind("no")) == StopTrying()


def test_the_backoff_is_never_below_retry_after() -> None:
    waited = step(errors.ProviderRateLimited("slow", retry_after_seconds=5))

    assert isinstance(waited, RetrySameTarget)
    assert waited.wait_seconds >= 5


def test_a_long_retry_after_stops_the_request() -> None:
    assert step(errors.ProviderRateLimited("slow", retry_after_seconds=MAX_WAIT_SECONDS + 1)) == StopTrying()


def test_a_backoff_beyond_the_deadline_stops_the_request() -> None:
    assert step(errors.ProviderRateLimited("slow", retry_after_seconds=5), left=4) == StopTrying()
    assert step(errors.TransientFailure("busy"), left=0, has_next=True) == StopTrying()


def test_the_limit_of_calls_covers_all_targets() -> None:
    assert step(errors.TransientFailure("busy"), calls=MAX_CALLS, has_next=True) == StopTrying()


def test_the_backoff_has_full_jitter_under_a_doubling_bound() -> None:
    rng = random.Random(1)
    for tries in range(1, 12):
        waits = [backoff(tries, None, rng, base_seconds=0.5) for _ in range(400)]
        bound = min(BACKOFF_CAP_SECONDS, 0.5 * 2**tries)
        assert max(waits) <= bound
        # Full jitter: from zero to the bound, with its mean in the middle.
        assert min(waits) < 0.05 * bound
        assert 0.42 * bound < sum(waits) / len(waits) < 0.58 * bound

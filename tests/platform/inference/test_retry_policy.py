"""After a failed call: ask again, ask the next, or give up."""

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
def test_a_passing_fault_is_asked_again_at_the_same_target(kind: type[ProviderError], has_next: bool) -> None:
    assert isinstance(step(kind("busy", status=503), has_next=has_next), RetrySameTarget)


@pytest.mark.parametrize(
    "kind", [errors.TransientFailure, errors.ProviderOverloaded, errors.BadResponse, errors.ResponseInterrupted]
)
def test_a_target_is_left_after_its_tries(kind: type[ProviderError]) -> None:
    assert step(kind("busy"), tries=MAX_TRIES_PER_TARGET, has_next=True) == TryNextTarget()
    assert step(kind("busy"), tries=MAX_TRIES_PER_TARGET) == StopTrying()


@pytest.mark.parametrize(
    "kind", [errors.ProviderRateLimited, errors.ProviderTimeout, errors.AmbiguousOutcome, errors.ProviderKeyRejected]
)
def test_a_limited_or_dead_key_and_a_call_that_may_be_billed_are_left_at_once(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == TryNextTarget()


def test_a_dead_key_without_another_target_is_given_up() -> None:
    assert step(errors.ProviderKeyRejected("no")) == StopTrying()


@pytest.mark.parametrize("has_next", [True, False])
@pytest.mark.parametrize("kind", [errors.RequestRejected, errors.ContentRefused])
def test_a_wrong_request_is_asked_of_nobody_else(kind: type[ProviderError], has_next: bool) -> None:
    assert step(kind("bad"), has_next=has_next) == StopTrying()


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.ContextTooLong])
def test_a_model_that_is_missing_or_too_small_here_may_be_elsewhere(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == TryNextTarget()
    assert step(kind("no")) == StopTrying()


def test_the_provider_s_wait_is_a_floor() -> None:
    waited = step(errors.ProviderRateLimited("slow", retry_after_seconds=5))

    assert isinstance(waited, RetrySameTarget)
    assert waited.wait_seconds >= 5


def test_a_long_wait_is_not_spent_in_a_slot() -> None:
    assert step(errors.ProviderRateLimited("slow", retry_after_seconds=MAX_WAIT_SECONDS + 1)) == StopTrying()


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    assert step(errors.ProviderRateLimited("slow", retry_after_seconds=5), left=4) == StopTrying()
    assert step(errors.TransientFailure("busy"), left=0, has_next=True) == StopTrying()


def test_all_targets_together_have_one_budget_of_calls() -> None:
    assert step(errors.TransientFailure("busy"), calls=MAX_CALLS, has_next=True) == StopTrying()


def test_the_wait_has_full_jitter_under_a_bound_that_doubles() -> None:
    rng = random.Random(1)
    for tries in range(1, 12):
        waits = [backoff(tries, None, rng, base_seconds=0.5) for _ in range(400)]
        bound = min(BACKOFF_CAP_SECONDS, 0.5 * 2**tries)
        assert max(waits) <= bound
        # Full jitter: from nothing to the bound, its mean in the middle.
        assert min(waits) < 0.05 * bound
        assert 0.42 * bound < sum(waits) / len(waits) < 0.58 * bound

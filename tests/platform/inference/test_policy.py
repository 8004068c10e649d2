"""After a failed call: ask again, ask the next, or give up."""

import random

import pytest

from inference.policy import (
    CAP_SECONDS,
    LONGEST_WAIT_SECONDS,
    MAX_CALLS,
    TRIES_PER_TARGET,
    AskAgain,
    AskNext,
    GiveUp,
    Step,
    backoff,
    decide,
)
from providers import errors
from providers.errors import ProviderError


def step(error: ProviderError, *, tries: int = 1, calls: int = 1, has_next: bool = False, left: float = 60) -> Step:
    return decide(error, tries=tries, calls=calls, has_next=has_next, remaining_seconds=left, chance=random.Random(7))


@pytest.mark.parametrize("kind", [errors.Transient, errors.Overloaded])
@pytest.mark.parametrize("has_next", [True, False])
def test_a_passing_fault_is_asked_again_at_the_same_target(kind: type[ProviderError], has_next: bool) -> None:
    assert isinstance(step(kind("busy", status=503), has_next=has_next), AskAgain)


@pytest.mark.parametrize("kind", [errors.Transient, errors.Overloaded, errors.BadResponse, errors.Interrupted])
def test_a_target_is_left_after_its_tries(kind: type[ProviderError]) -> None:
    assert step(kind("busy"), tries=TRIES_PER_TARGET, has_next=True) == AskNext()
    assert step(kind("busy"), tries=TRIES_PER_TARGET) == GiveUp()


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.TimedOut, errors.Ambiguous, errors.CredentialDead])
def test_a_limited_or_dead_key_and_a_call_that_may_be_billed_are_left_at_once(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == AskNext()


def test_a_dead_key_without_another_target_is_given_up() -> None:
    assert step(errors.CredentialDead("no")) == GiveUp()


@pytest.mark.parametrize("has_next", [True, False])
@pytest.mark.parametrize("kind", [errors.Rejected, errors.ContentRefused])
def test_a_wrong_request_is_asked_of_nobody_else(kind: type[ProviderError], has_next: bool) -> None:
    assert step(kind("bad"), has_next=has_next) == GiveUp()


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.ContextTooLong])
def test_a_model_that_is_missing_or_too_small_here_may_be_elsewhere(kind: type[ProviderError]) -> None:
    assert step(kind("no"), has_next=True) == AskNext()
    assert step(kind("no")) == GiveUp()


def test_the_provider_s_wait_is_a_floor() -> None:
    waited = step(errors.RateLimited("slow", retry_after_seconds=5))

    assert isinstance(waited, AskAgain)
    assert waited.wait_seconds >= 5


def test_a_long_wait_is_not_spent_in_a_slot() -> None:
    assert step(errors.RateLimited("slow", retry_after_seconds=LONGEST_WAIT_SECONDS + 1)) == GiveUp()


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    assert step(errors.RateLimited("slow", retry_after_seconds=5), left=4) == GiveUp()
    assert step(errors.Transient("busy"), left=0, has_next=True) == GiveUp()


def test_all_targets_together_have_one_budget_of_calls() -> None:
    assert step(errors.Transient("busy"), calls=MAX_CALLS, has_next=True) == GiveUp()


def test_the_wait_has_full_jitter_under_a_bound_that_doubles() -> None:
    chance = random.Random(1)
    for tries in range(1, 12):
        waits = [backoff(tries, None, chance, base_seconds=0.5) for _ in range(400)]
        bound = min(CAP_SECONDS, 0.5 * 2**tries)
        assert max(waits) <= bound
        # Full jitter: from nothing to the bound, its mean in the middle.
        assert min(waits) < 0.05 * bound
        assert 0.42 * bound < sum(waits) / len(waits) < 0.58 * bound

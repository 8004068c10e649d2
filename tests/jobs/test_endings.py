"""What follows when no target answered."""

import random

import pytest

from inference.complete import Unanswered
from jobs.endings import PROVIDERS_RESTING, Failed, GivenBack, RetryIn, RetryRule, judge, put_off
from providers import errors


def rule(errors_so_far: int = 0, max_attempts: int = 3) -> RetryRule:
    return RetryRule(errors_so_far, max_attempts, base_seconds=2, cap_seconds=300)


def ending(unanswered: Unanswered, given: RetryRule) -> RetryIn | Failed:
    return judge(unanswered, given, random.Random(3))


def test_what_may_pass_is_tried_again_later() -> None:
    result = ending(Unanswered(errors.Overloaded("busy", 503), retryable=True), rule())

    assert isinstance(result, RetryIn)
    assert 0 <= result.seconds <= 2
    assert (result.error_code, result.error_message) == ("overloaded", "busy")


@pytest.mark.parametrize("errors_so_far", [0, 1, 5])
def test_the_next_attempt_is_never_before_what_the_provider_asked_for(errors_so_far: int) -> None:
    result = ending(
        Unanswered(errors.RateLimited("slow", 429), retryable=True, retry_after_seconds=40), rule(errors_so_far, 10)
    )

    assert isinstance(result, RetryIn)
    assert result.seconds >= 40


def test_what_will_not_pass_fails_at_once_with_the_provider_s_words() -> None:
    refused = Unanswered(errors.Rejected("`temperature` must be below 2.", 400), retryable=False)

    assert ending(refused, rule()) == Failed("rejected", "`temperature` must be below 2.")


def test_the_last_attempt_is_not_followed_by_another() -> None:
    result = ending(Unanswered(errors.Transient("reset", None), retryable=True), rule(2))

    assert result == Failed("exhausted", "3 attempts failed; the last: reset")


@pytest.mark.parametrize(
    ("times", "least", "most"), [(0, 5, 30), (1, 10, 60), (4, 80, 480), (5, 80, 480), (9**9, 80, 480)]
)
def test_who_was_put_off_often_waits_longer(times: int, least: float, most: float) -> None:
    waits = [put_off(times, random.Random(seed)).seconds for seed in range(50)]

    assert least <= min(waits) < 1.5 * least
    assert most * 0.9 < max(waits) <= most


def test_who_waits_for_a_provider_waits_as_long_as_it_said() -> None:
    assert put_off(0, random.Random(1), PROVIDERS_RESTING, 200.0) == GivenBack(200.0, "providers_resting")

"""The retry budget."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from inference.retry_budget import RetryBudgetKey, RetryBudgets, RetryBudgetUsage, to_report

ONE, OTHER = RetryBudgetKey("provider", "one"), RetryBudgetKey("provider", "other")


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_retries_are_a_fifth_of_first_tries() -> None:
    budgets = RetryBudgets(share=0.2, floor=0)
    for _ in range(50):
        budgets.count_first_try(ONE)

    assert [budgets.try_acquire(ONE) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budgets.usage() == [RetryBudgetUsage(ONE, first_tries=50, retries=10, refused=2)]


def test_the_floor_allows_retries_with_few_first_tries() -> None:
    budgets = RetryBudgets(share=0.2, floor=3)
    budgets.count_first_try(ONE)

    assert [budgets.try_acquire(ONE) for _ in range(4)] == [True, True, True, False]


def test_counts_expire_after_a_minute() -> None:
    clock = Clock()
    budgets = RetryBudgets(share=0.2, floor=1, clock=clock)
    assert budgets.try_acquire(ONE)
    clock.now += 59
    assert not budgets.try_acquire(ONE)
    clock.now += 1
    assert budgets.try_acquire(ONE)
    clock.now += 60
    assert budgets.usage() == []


def test_providers_have_separate_budgets() -> None:
    budgets = RetryBudgets(share=0.2, floor=1)
    assert budgets.try_acquire(ONE)
    assert not budgets.try_acquire(ONE)
    assert budgets.try_acquire(OTHER)


def test_a_retry_needs_budget_of_both_site_and_provider() -> None:
    budgets = RetryBudgets(share=0.2, floor=1)
    greedy, modest = budgets.for_site(UUID(int=1)), budgets.for_site(UUID(int=2))
    assert greedy.try_acquire("one")
    assert not greedy.try_acquire("other")
    assert modest.try_acquire("other")
    assert not modest.try_acquire("one")


def test_a_refused_retry_spends_no_budget() -> None:
    budgets = RetryBudgets(share=0.2, floor=1)
    assert budgets.try_acquire(ONE)
    assert not budgets.try_acquire(ONE, OTHER)
    assert budgets.try_acquire(OTHER)


@given(steps=st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=200), floor=st.integers(0, 5))
def test_retries_never_exceed_the_share_in_any_minute(steps: list[tuple[bool, float]], floor: int) -> None:
    clock = Clock()
    budgets = RetryBudgets(share=0.2, floor=floor, clock=clock)
    for is_first, pause_seconds in steps:
        clock.now += pause_seconds
        if is_first:
            budgets.count_first_try(ONE)
            continue
        allowed = budgets.try_acquire(ONE)
        for usage in budgets.usage():
            assert not allowed or usage.retries <= max(floor, 0.2 * usage.first_tries)


def test_the_report_lists_budgets_with_retries_or_refusals() -> None:
    budgets = RetryBudgets(share=0.2, floor=0)
    budgets.count_first_try(ONE, OTHER)
    budgets.try_acquire(ONE)

    assert to_report(budgets) == [
        {"scope": "provider", "name": "one", "first_tries": 1, "retries": 0, "refused": 1},
    ]

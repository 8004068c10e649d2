"""A bound on retries, so that a provider in trouble is not asked many times over by everybody who waits for it.

A first try is the first time a request asks a provider; asking the same provider again for it, now or in a later
attempt, is a retry. Going on to the next provider is none: that one has not failed yet.

Each process keeps its own books. Where every one of them keeps within a share of its own first tries, all of them
together do, and nothing has to be agreed on between them.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RetryBudgetKey:
    """Whose budget it is: a site's (its id) or a provider's (its name)."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class RetryBudgetUsage:
    """A budget's last minute."""

    key: RetryBudgetKey
    first_tries: int
    retries: int
    #: Retries that were put off.
    refused: int


@dataclass(slots=True)
class _SecondCounts:
    at: int
    first_tries: int = 0
    retries: int = 0
    refused: int = 0


_Window: TypeAlias = "deque[_SecondCounts]"


class RequestRetryBudget(Protocol):
    """The books as one request sees them."""

    def record_first_try(self, provider: str) -> None:
        """A provider is asked for the first time."""
        ...

    def try_acquire(self, provider: str) -> bool:
        """May the provider be asked again? If so, it counts."""
        ...


class RetryBudgets:
    """The books of a process. For one thread: the event loop's."""

    def __init__(self, share: float, floor: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        #: So many retries in a minute are always allowed: a share of nothing would be nothing.
        self._floor = floor
        self._clock = clock
        self._windows: dict[RetryBudgetKey, _Window] = defaultdict(deque)

    def for_site(self, site_id: UUID) -> "SiteRetryBudget":
        """Return the books as a site's request sees them: its own budget, and each provider's."""
        return SiteRetryBudget(self, RetryBudgetKey("site", str(site_id)))

    def count_first_try(self, *keys: RetryBudgetKey) -> None:
        for key in keys:
            self._current_second(key).first_tries += 1

    def try_acquire(self, *keys: RetryBudgetKey) -> bool:
        """Count a retry in each of these budgets, if all have room; else count a refusal in those that have none."""
        exhausted = [key for key in keys if not self._has_budget(key)]
        for key in exhausted:
            self._current_second(key).refused += 1
        if exhausted:
            return False
        for key in keys:
            self._current_second(key).retries += 1
        return True

    def usage(self) -> list[RetryBudgetUsage]:
        """Return the last minute of every budget that was used in it, the most refused first."""
        found = [self._sum(key) for key in list(self._windows)]
        used = [each for each in found if each.first_tries or each.retries or each.refused]
        return sorted(used, key=lambda each: (-each.refused, -each.retries, each.key.scope, each.key.name))

    def _has_budget(self, key: RetryBudgetKey) -> bool:
        usage = self._sum(key)
        return usage.retries < max(self._floor, int(self._share * usage.first_tries))

    def _sum(self, key: RetryBudgetKey) -> RetryBudgetUsage:
        window = list(self._prune(key))
        return RetryBudgetUsage(
            key,
            sum(each.first_tries for each in window),
            sum(each.retries for each in window),
            sum(each.refused for each in window),
        )

    def _prune(self, key: RetryBudgetKey) -> Iterator[_SecondCounts]:
        """Forget what is older than the window, and yield the rest."""
        window, begin = self._windows[key], int(self._clock()) - WINDOW_SECONDS
        while window and window[0].at <= begin:
            window.popleft()
        if not window:
            del self._windows[key]
        yield from window

    def _current_second(self, key: RetryBudgetKey) -> _SecondCounts:
        window, now = self._windows[key], int(self._clock())
        if not window or window[-1].at != now:
            window.append(_SecondCounts(now))
        return window[-1]


@dataclass(frozen=True, slots=True)
class SiteRetryBudget:
    """The books as one site's request sees them."""

    budgets: RetryBudgets
    site: RetryBudgetKey

    def record_first_try(self, provider: str) -> None:
        self.budgets.count_first_try(self.site, RetryBudgetKey("provider", provider))

    def try_acquire(self, provider: str) -> bool:
        return self.budgets.try_acquire(self.site, RetryBudgetKey("provider", provider))


def to_report(budgets: RetryBudgets, most: int = 20) -> list[dict[str, Any]]:
    """Write down the last minute of the budgets that were asked for a retry."""
    asked = [usage for usage in budgets.usage() if usage.retries or usage.refused]
    return [
        {
            "scope": usage.key.scope,
            "name": usage.key.name,
            "first_tries": usage.first_tries,
            "retries": usage.retries,
            "refused": usage.refused,
        }
        for usage in asked[:most]
    ]

"""Retry budget: limits retries to a share of first tries, so that they cannot multiply the load on a failing provider.

A first try is a request's first call to a provider; a later call to the same provider, in the same or a later attempt,
is a retry. Failover to the next provider is not a retry: that provider has not failed yet.

Each process counts for itself. If every process stays within its share of its own first tries, so do all together,
without coordination between them.
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
    """Identifies a budget: a site's (by its id) or a provider's (by its name)."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class RetryBudgetUsage:
    """The counts of a budget over the last minute."""

    key: RetryBudgetKey
    first_tries: int
    retries: int
    #: Retries that the budget did not allow; jobs are deferred.
    refused: int


@dataclass(slots=True)
class _SecondCounts:
    at: int
    first_tries: int = 0
    retries: int = 0
    refused: int = 0


_Window: TypeAlias = "deque[_SecondCounts]"


class RequestRetryBudget(Protocol):
    """The retry budgets that apply to one request."""

    def record_first_try(self, provider: str) -> None:
        """Count the first call to a provider."""
        ...

    def try_acquire(self, provider: str) -> bool:
        """Return whether the provider may be called again; if so, count the retry."""
        ...


class RetryBudgets:
    """All retry budgets of one process. Not thread-safe: for the event loop only."""

    def __init__(self, share: float, floor: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        #: Retries per minute that are always allowed: with few first tries the share alone would allow none.
        self._floor = floor
        self._clock = clock
        self._windows: dict[RetryBudgetKey, _Window] = defaultdict(deque)

    def for_site(self, site_id: UUID) -> "SiteRetryBudget":
        """Return the budgets for a site's request: the site's own, and each provider's."""
        return SiteRetryBudget(self, RetryBudgetKey("site", str(site_id)))

    def count_first_try(self, *keys: RetryBudgetKey) -> None:
        for key in keys:
            self._current_second(key).first_tries += 1

    def try_acquire(self, *keys: RetryBudgetKey) -> bool:
        """Count a retry in each budget if none is exhausted; otherwise count a refusal in the exhausted ones."""
        exhausted = [key for key in keys if not self._has_budget(key)]
        for key in exhausted:
            self._current_second(key).refused += 1
        if exhausted:
            return False
        for key in keys:
            self._current_second(key).retries += 1
        return True

    def usage(self) -> list[RetryBudgetUsage]:
        """Return the counts of every budget used in the last minute, most refusals first."""
        usages = [self._sum(key) for key in list(self._windows)]
        used = [usage for usage in usages if usage.first_tries or usage.retries or usage.refused]
        return sorted(used, key=lambda usage: (-usage.refused, -usage.retries, usage.key.scope, usage.key.name))

    def _has_budget(self, key: RetryBudgetKey) -> bool:
        usage = self._sum(key)
        return usage.retries < max(self._floor, int(self._share * usage.first_tries))

    def _sum(self, key: RetryBudgetKey) -> RetryBudgetUsage:
        window = list(self._prune(key))
        return RetryBudgetUsage(
            key,
            sum(second.first_tries for second in window),
            sum(second.retries for second in window),
            sum(second.refused for second in window),
        )

    def _prune(self, key: RetryBudgetKey) -> Iterator[_SecondCounts]:
        """Drop seconds before the window, and yield the rest."""
        window, start = self._windows[key], int(self._clock()) - WINDOW_SECONDS
        while window and window[0].at <= start:
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
    """The retry budgets that apply to a request of one site."""

    budgets: RetryBudgets
    site: RetryBudgetKey

    def record_first_try(self, provider: str) -> None:
        self.budgets.count_first_try(self.site, RetryBudgetKey("provider", provider))

    def try_acquire(self, provider: str) -> bool:
        return self.budgets.try_acquire(self.site, RetryBudgetKey("provider", provider))


def to_report(budgets: RetryBudgets, most: int = 20) -> list[dict[str, Any]]:
    """Return the last minute of the budgets with retries or refusals, for a worker's report."""
    retried = [usage for usage in budgets.usage() if usage.retries or usage.refused]
    return [
        {
            "scope": usage.key.scope,
            "name": usage.key.name,
            "first_tries": usage.first_tries,
            "retries": usage.retries,
            "refused": usage.refused,
        }
        for usage in retried[:most]
    ]

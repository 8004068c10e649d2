"""Retry policy after a failed call: retry the same target, fail over to the next, or stop. Pure; never waits."""

import random
from dataclasses import dataclass
from typing import TypeAlias

from providers.errors import ProviderError, ProviderRateLimited

#: Calls to one target within one request.
MAX_TRIES_PER_TARGET = 2
#: Calls of one request over all targets.
MAX_CALLS = 6
#: A longer wait would hold a slot for too long: the request fails, and a job is retried later.
MAX_WAIT_SECONDS = 10.0
BACKOFF_BASE_SECONDS = 0.25
BACKOFF_CAP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class RetrySameTarget:
    """Call the same target once more, after a backoff."""

    wait_seconds: float


@dataclass(frozen=True, slots=True)
class TryNextTarget:
    """Call the next target immediately."""


@dataclass(frozen=True, slots=True)
class StopTrying: ...


FailoverStep: TypeAlias = RetrySameTarget | TryNextTarget | StopTrying


def decide_next_step(
    error: ProviderError,
    *,
    tries: int,
    calls: int,
    has_next: bool,
    remaining_seconds: float,
    rng: random.Random,
) -> FailoverStep:
    """Decide what follows the `calls`-th call of a request, which was the `tries`-th of its target."""
    if calls >= MAX_CALLS or remaining_seconds <= 0:
        return StopTrying()
    # The next target needs no wait, so a rate-limited key is not retried; nor is a call that may be billed twice.
    skip_retry = isinstance(error, ProviderRateLimited) or error.maybe_billed or not error.retryable
    if has_next and error.failover and (skip_retry or tries >= MAX_TRIES_PER_TARGET):
        return TryNextTarget()
    if error.retryable and tries < MAX_TRIES_PER_TARGET:
        wait_seconds = backoff(tries, error.retry_after_seconds, rng)
        if wait_seconds <= min(MAX_WAIT_SECONDS, remaining_seconds):
            return RetrySameTarget(wait_seconds)
    return TryNextTarget() if has_next and error.failover else StopTrying()


def backoff(
    tries: int,
    min_seconds: float | None,
    rng: random.Random,
    base_seconds: float = BACKOFF_BASE_SECONDS,
    cap_seconds: float = BACKOFF_CAP_SECONDS,
) -> float:
    """Return a backoff with full jitter over an exponential bound, never below `min_seconds` (`Retry-After`).

    Full jitter: U(0, min(cap, base * 2^tries)), as in AWS's "Exponential backoff and jitter" (2015).
    """
    wait_seconds = rng.uniform(0, min(cap_seconds, base_seconds * 2 ** min(tries, 30)))
    return wait_seconds if min_seconds is None else min_seconds + wait_seconds

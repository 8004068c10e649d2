"""What to do after a failed call: ask again, ask the next, or give up. Pure; nothing here waits."""

import random
from dataclasses import dataclass
from typing import TypeAlias

from providers.errors import ProviderError, ProviderRateLimited

#: How often one target is asked within one request.
MAX_TRIES_PER_TARGET = 2
#: How many calls one request may make in all, over every target.
MAX_CALLS = 6
#: A wait longer than this is not spent holding a slot: the request ends, and a job comes back later.
MAX_WAIT_SECONDS = 10.0
BACKOFF_BASE_SECONDS = 0.25
BACKOFF_CAP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class RetrySameTarget:
    """Ask the same target once more, after a wait."""

    wait_seconds: float


@dataclass(frozen=True, slots=True)
class TryNextTarget:
    """Ask the next target, at once."""


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
    # Another target needs no wait, so a limited key is left alone; and what may be billed twice is not asked twice.
    leave = isinstance(error, ProviderRateLimited) or error.maybe_billed or not error.retryable
    if has_next and error.failover and (leave or tries >= MAX_TRIES_PER_TARGET):
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
    """Return a wait with full jitter over an exponential bound, never below what the provider asked for.

    Full jitter: U(0, min(cap, base * 2^tries)), as in AWS's "Exponential backoff and jitter" (2015).
    """
    wait_seconds = rng.uniform(0, min(cap_seconds, base_seconds * 2 ** min(tries, 30)))
    return wait_seconds if min_seconds is None else min_seconds + wait_seconds

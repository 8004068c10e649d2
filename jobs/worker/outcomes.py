"""How an attempt can end, and what follows from an inference's result. Pure."""

import random
from dataclasses import dataclass
from typing import TypeAlias

from inference.complete import Exhausted
from inference.retry_policy import backoff
from providers.errors import ProviderError


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """`result` is the sealed column's clear text: the answer as JSON in the wire of the job's kind."""

    result: bytes


@dataclass(frozen=True, slots=True)
class RetryAfterBackoff:
    """The attempt failed; the job goes back to the queue and may be claimed after this time."""

    seconds: float
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The job ends without success, and will not be tried again by itself."""

    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class AttemptCanceled:
    """The site asked for it while the attempt was under way."""


@dataclass(frozen=True, slots=True)
class AttemptReleased:
    """The job goes back to the queue through no fault of its own: the worker stops, or lost its lease, or cannot
    read it yet, or the retry budget is spent, or its providers are left alone. After this time it may be claimed again.
    """

    seconds: float = 0.0
    #: A code that the attempt and the waiting job bear; empty where there is nothing to say.
    reason: str = ""


#: What is left on a job of which nobody was asked: a retry for which there was no budget, …
RETRY_BUDGET_EXHAUSTED = "retry_budget_exhausted"
#: … or one whose providers are all left alone (`inference.circuit_breaker`).
PROVIDERS_IN_COOLDOWN = "providers_in_cooldown"

#: A retry for which there is no budget waits between so and so many seconds for its next chance: at first, …
DEFER_SECONDS = (5.0, 30.0)
#: … and twice as long each time, so often. Thousands that wait for a budget must not keep the workers from the others.
MAX_DOUBLINGS = 4

ExecutionOutcome: TypeAlias = AttemptSucceeded | RetryAfterBackoff | AttemptFailed | AttemptCanceled | AttemptReleased


@dataclass(frozen=True, slots=True)
class JobRetryPolicy:
    """How attempts follow each other. `errors` counts the attempts that failed before this one."""

    errors: int
    max_attempts: int
    base_seconds: float
    cap_seconds: float


def decide_retry(exhausted: Exhausted, rule: JobRetryPolicy, rng: random.Random) -> RetryAfterBackoff | AttemptFailed:
    """Decide what follows when no target answered."""
    code, message = error_details(exhausted.error)
    if not exhausted.retryable:
        return AttemptFailed(code, message)
    if rule.errors + 1 >= rule.max_attempts:
        return AttemptFailed("exhausted", f"{rule.max_attempts} attempts failed; the last: {message}")
    seconds = backoff(rule.errors, exhausted.retry_after_seconds, rng, rule.base_seconds, rule.cap_seconds)
    return RetryAfterBackoff(seconds, code, message)


def defer(
    times: int, rng: random.Random, reason: str = RETRY_BUDGET_EXHAUSTED, min_seconds: float = 0.0
) -> AttemptReleased:
    """Give back a job of which nobody was asked, after it was put off so many times already."""
    seconds = rng.uniform(*DEFER_SECONDS) * 2 ** min(times, MAX_DOUBLINGS)
    return AttemptReleased(max(seconds, min_seconds), reason)


def error_details(error: ProviderError) -> tuple[str, str]:
    """Return our code for a provider's error, and the provider's own words."""
    return error.kind, error.message[:500]

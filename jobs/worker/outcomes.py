"""The outcomes of an attempt, and the decision that follows from the result of an inference. Pure."""

import random
from dataclasses import dataclass
from typing import TypeAlias

from inference.complete import Exhausted
from inference.retry_policy import backoff
from providers.errors import ProviderError


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """`result` is the plaintext of the encrypted column: the answer as JSON in the wire format of the job's kind."""

    result: bytes


@dataclass(frozen=True, slots=True)
class RetryAfterBackoff:
    """The attempt failed; the job goes back to the queue and may be claimed after this backoff."""

    seconds: float
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The job fails, and is not retried automatically."""

    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class AttemptCanceled:
    """The site canceled the job during the attempt."""


@dataclass(frozen=True, slots=True)
class AttemptReleased:
    """The job goes back to the queue without an error, and may be claimed again after `seconds`.

    The worker shuts down, lost its lease or cannot decrypt the job yet; or the attempt was deferred, because the retry
    budget is exhausted or all circuit breakers are open.
    """

    seconds: float = 0.0
    #: An error code for the attempt and the waiting job; empty if there is none.
    reason: str = ""


#: Error codes of a deferred job, for which no provider was called: a retry without a retry budget, …
RETRY_BUDGET_EXHAUSTED = "retry_budget_exhausted"
#: … or a job whose providers are all in cooldown (`inference.circuit_breaker`).
PROVIDERS_IN_COOLDOWN = "providers_in_cooldown"

#: The range of the delay of a deferred job, which is random and doubles each time, …
DEFER_SECONDS = (5.0, 30.0)
#: … this many times. Thousands of jobs that wait for a retry budget must not keep workers from running others.
MAX_DOUBLINGS = 4

ExecutionOutcome: TypeAlias = AttemptSucceeded | RetryAfterBackoff | AttemptFailed | AttemptCanceled | AttemptReleased


@dataclass(frozen=True, slots=True)
class JobRetryPolicy:
    """The limits and delays of a job's attempts. `errors` counts the attempts that failed before this one."""

    errors: int
    max_attempts: int
    base_seconds: float
    cap_seconds: float


def decide_retry(exhausted: Exhausted, rule: JobRetryPolicy, rng: random.Random) -> RetryAfterBackoff | AttemptFailed:
    """Decide the outcome of an attempt in which no target answered."""
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
    """Return the outcome of an attempt that called no provider, of a job that was deferred `times` times before."""
    seconds = rng.uniform(*DEFER_SECONDS) * 2 ** min(times, MAX_DOUBLINGS)
    return AttemptReleased(max(seconds, min_seconds), reason)


def error_details(error: ProviderError) -> tuple[str, str]:
    """Return our code for a provider's error, and the provider's own message."""
    return error.kind, error.message[:500]

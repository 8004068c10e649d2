"""How an attempt can end, and what follows from an inference's result. Pure."""

import random
from dataclasses import dataclass
from typing import TypeAlias

from inference.complete import Unanswered
from inference.policy import backoff
from providers.errors import ProviderError


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`result` is the sealed column's clear text: the answer as JSON in the wire of the job's kind."""

    result: bytes


@dataclass(frozen=True, slots=True)
class RetryIn:
    """The attempt failed; the job goes back to the queue and may be claimed after this time."""

    seconds: float
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ends without success, and will not be tried again by itself."""

    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class Canceled:
    """The site asked for it while the attempt was under way."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The job goes back to the queue through no fault of its own: the worker stops, or lost its lease, or cannot
    read it yet, or the retry budget is spent, or its providers are left alone. After this time it may be claimed again.
    """

    seconds: float = 0.0
    #: A code that the attempt and the waiting job bear; empty where there is nothing to say.
    why: str = ""


#: What is left on a job of which nobody was asked: a retry for which there was no budget, …
RETRY_BUDGET = "retry_budget"
#: … or one whose providers are all left alone (`inference.breaker`).
PROVIDERS_RESTING = "providers_resting"

#: A retry for which there is no budget waits between so and so many seconds for its next chance: at first, …
PUT_OFF_SECONDS = (5.0, 30.0)
#: … and twice as long each time, so often. Thousands that wait for a budget must not keep the workers from the others.
MOST_DOUBLINGS = 4

Ending: TypeAlias = Succeeded | RetryIn | Failed | Canceled | GivenBack


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How attempts follow each other. `errors` counts the attempts that failed before this one."""

    errors: int
    max_attempts: int
    base_seconds: float
    cap_seconds: float


def judge(unanswered: Unanswered, rule: RetryRule, chance: random.Random) -> RetryIn | Failed:
    """Decide what follows when no target answered."""
    code, message = describe(unanswered.error)
    if not unanswered.retryable:
        return Failed(code, message)
    if rule.errors + 1 >= rule.max_attempts:
        return Failed("exhausted", f"{rule.max_attempts} attempts failed; the last: {message}")
    seconds = backoff(rule.errors, unanswered.retry_after_seconds, chance, rule.base_seconds, rule.cap_seconds)
    return RetryIn(seconds, code, message)


def put_off(times: int, chance: random.Random, why: str = RETRY_BUDGET, least_seconds: float = 0.0) -> GivenBack:
    """Give back a job of which nobody was asked, after it was put off so many times already."""
    seconds = chance.uniform(*PUT_OFF_SECONDS) * 2 ** min(times, MOST_DOUBLINGS)
    return GivenBack(max(seconds, least_seconds), why)


def describe(error: ProviderError) -> tuple[str, str]:
    """Return our code for a provider's error, and the provider's own words."""
    return error.kind, error.message[:500]

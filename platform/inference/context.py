"""The context of one inference request: its collaborators and limits, as one value."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from inference.calls import CallLedger, CallTrace
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.retry_budget import RequestRetryBudget
from inference.routing import ProviderSpec
from providers.types import Provider


@dataclass(frozen=True, slots=True)
class InferenceContext:
    """Everything that `stream`, `complete` and `FailoverPlan` need in addition to the request and its targets."""

    #: Receives every call that was made, however the request ends.
    trace: CallTrace
    #: Records each call before it is made. If it raises, the call is not made.
    ledger: CallLedger
    retry_budget: RequestRetryBudget
    #: For all calls of the request together, retries and backoff included.
    deadline_seconds: float
    #: Returns the long-lived client of a provider.
    provider_for: Callable[[ProviderSpec], Provider]
    #: Orders targets by weight and draws the jitter of backoff.
    rng: random.Random
    breaker: CircuitBreaker = NO_CIRCUIT_BREAKER
    #: An earlier attempt at this request has failed: the first call to each provider counts as a retry, too.
    is_retry: bool = False

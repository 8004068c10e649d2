"""Failover plan of one request: retries and failover over its targets, under one deadline and one limit of calls."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from inference.circuit_breaker import CircuitBreaker
from inference.context import InferenceContext
from inference.retry_policy import RetrySameTarget, StopTrying, TryNextTarget, decide_next_step
from inference.routing import Target, order_targets, with_key
from providers.errors import ProviderError, ProviderTimeout


class FailoverPlan:
    """The sequence of calls that one request may make.

    Raises:
        NoProviderKey: no target has a key.
    """

    def __init__(self, model: str, targets: tuple[Target, ...], context: InferenceContext) -> None:
        self.context = context
        self._remaining_targets = with_key(model, order_targets(targets, context.rng))
        self._deadline = time.monotonic() + context.deadline_seconds
        self._target: Target | None = self._remaining_targets.pop(0)
        self._tries = 0
        self._calls = 0
        self._errors: list[ProviderError] = []
        #: Of targets that were skipped because their circuit breaker is open.
        self._skipped_errors: list[ProviderError] = []

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    async def next_target(self) -> Target | None:
        """Return the next target to call. None if no call is allowed: `failure` says why."""
        while self._target is not None:
            if self.remaining_seconds <= 0:
                self._errors.append(
                    ProviderTimeout(f"No answer within {self.context.deadline_seconds:g} s, over all tries.")
                )
                return None
            self._tries += 1
            if await self._may_call(self._target):
                self._calls += 1
                return self._target
            self._advance()
        return None

    @asynccontextmanager
    async def track_call(self, target: Target) -> AsyncIterator["ActiveCall"]:
        """Report the result of the call that is made in this block to the circuit breaker."""
        call = ActiveCall(target, self.context.breaker)
        try:
            yield call
        except ProviderError as error:
            self._errors.append(error)
            await self.context.breaker.report(target, error)
            raise
        except BaseException:
            # Canceled, or a bug of ours: it says nothing about the target.
            self.context.breaker.release(target)
            raise
        await call.report_answered()

    async def handle_failure(self, error: ProviderError) -> None:
        """Apply the retry policy to a failed call. Waits for the backoff if the same target is to be retried."""
        step = decide_next_step(
            error,
            tries=self._tries,
            calls=self._calls,
            has_next=bool(self._remaining_targets),
            remaining_seconds=self.remaining_seconds,
            rng=self.context.rng,
        )
        match step:
            case RetrySameTarget(wait_seconds):
                await asyncio.sleep(wait_seconds)
            case TryNextTarget():
                self._advance()
            case StopTrying():
                self._target = None

    # Results

    @property
    def has_called(self) -> bool:
        return bool(self._errors)

    @property
    def failure(self) -> ProviderError | None:
        """The last error. None if no call was made because the retry budget is exhausted."""
        errors = self._errors or self._skipped_errors
        return errors[-1] if errors else None

    @property
    def is_retryable(self) -> bool:
        # A rejected request is never retryable. Otherwise one target that may recover is enough.
        last = self.failure
        return last is None or last.failover and any(error.retryable for error in self._errors + self._skipped_errors)

    @property
    def retry_after_seconds(self) -> float | None:
        """The longest `Retry-After` of all targets; None if there was none."""
        errors = self._errors + self._skipped_errors
        waits = [error.retry_after_seconds for error in errors if error.retry_after_seconds is not None]
        return max(waits, default=None)

    def _advance(self) -> None:
        self._target, self._tries = self._remaining_targets.pop(0) if self._remaining_targets else None, 0

    async def _may_call(self, target: Target) -> bool:
        breaker, retry_budget = self.context.breaker, self.context.retry_budget
        if not await breaker.allows(target):
            self._skipped_errors.append(breaker.refusal(target))
            return False
        if self.context.is_retry or self._tries > 1:
            if not retry_budget.try_acquire(target.provider.name):
                breaker.release(target)
                return False
        else:
            retry_budget.record_first_try(target.provider.name)
        return True


@dataclass(slots=True)
class ActiveCall:
    """A call under way, and whether the target has answered."""

    target: Target
    breaker: CircuitBreaker
    has_answered: bool = False

    async def report_answered(self) -> None:
        """Report a success to the circuit breaker, once. Idempotent."""
        if not self.has_answered:
            self.has_answered = True
            await self.breaker.report(self.target, None)

"""Whom a request asks, one target after the other: retry, failover, one deadline and one budget of calls over all."""

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
        """Return whom to ask now. None if nobody may be asked: then `failure` says why."""
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
        """Take in how a call goes that is made in this block."""
        call = ActiveCall(target, self.context.breaker)
        try:
            yield call
        except ProviderError as error:
            self._errors.append(error)
            await self.context.breaker.report(target, error)
            raise
        except BaseException:
            # Canceled, or our own fault: it says nothing of the target.
            self.context.breaker.release(target)
            raise
        await call.report_answered()

    async def handle_failure(self, error: ProviderError) -> None:
        """Decide what follows a failure. Waits, where the same target is to be asked again."""
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

    # What came of it

    @property
    def has_called(self) -> bool:
        return bool(self._errors)

    @property
    def failure(self) -> ProviderError | None:
        """The last error. None if nobody was asked, for the retry budget is spent."""
        errors = self._errors or self._skipped_errors
        return errors[-1] if errors else None

    @property
    def is_retryable(self) -> bool:
        # A wrong request is wrong everywhere and ends the matter; else, one target that may recover is enough.
        last = self.failure
        return last is None or last.failover and any(error.retryable for error in self._errors + self._skipped_errors)

    @property
    def retry_after_seconds(self) -> float | None:
        """How long nobody should be asked, as far as anybody said so."""
        errors = self._errors + self._skipped_errors
        floors = [error.retry_after_seconds for error in errors if error.retry_after_seconds is not None]
        return max(floors, default=None)

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
    """A call under way."""

    target: Target
    breaker: CircuitBreaker
    has_answered: bool = False

    async def report_answered(self) -> None:
        """Take in that the target answers; more than once is as once."""
        if not self.has_answered:
            self.has_answered = True
            await self.breaker.report(self.target, None)

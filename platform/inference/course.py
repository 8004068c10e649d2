"""Whom a request asks, one target after the other: retry, failover, one deadline and one budget of calls over all."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from inference.breaker import Breaker
from inference.policy import AskAgain, AskNext, GiveUp, decide
from inference.retry_budget import Retries
from inference.routing import Target, order, with_key
from providers.errors import ProviderError, TimedOut


class Course:
    """The way of one request over its targets.

    Raises:
        NoProvider: no target has a key.
    """

    def __init__(
        self,
        model: str,
        targets: tuple[Target, ...],
        *,
        retries: Retries,
        deadline_seconds: float,
        chance: random.Random,
        breaker: Breaker,
        asked_before: bool = False,
    ) -> None:
        self._waiting = with_key(model, order(targets, chance))
        self._retries, self._breaker, self._chance = retries, breaker, chance
        self._deadline_seconds = deadline_seconds
        self._deadline = time.monotonic() + deadline_seconds
        self._asked_before = asked_before
        self._target: Target | None = self._waiting.pop(0)
        self._tries = 0
        self._calls = 0
        self._failed: list[ProviderError] = []
        #: Why targets were not asked that are being left alone.
        self._passed_over: list[ProviderError] = []

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    async def next_target(self) -> Target | None:
        """Return whom to ask now. None if nobody may be asked: then `failure` says why."""
        while self._target is not None:
            if self.remaining_seconds <= 0:
                self._failed.append(TimedOut(f"No answer within {self._deadline_seconds:g} s, over all tries."))
                return None
            self._tries += 1
            if await self._may_ask(self._target):
                self._calls += 1
                return self._target
            self._leave()
        return None

    @asynccontextmanager
    async def asking(self, target: Target) -> AsyncIterator["Asking"]:
        """Take in how a call goes that is made in this block."""
        asking = Asking(target, self._breaker)
        try:
            yield asking
        except ProviderError as error:
            self._failed.append(error)
            await self._breaker.report(target, error)
            raise
        except BaseException:
            # Canceled, or our own fault: it says nothing of the target.
            self._breaker.release(target)
            raise
        await asking.answers()

    async def go_on(self, error: ProviderError) -> None:
        """Decide what follows a failure. Waits, where the same target is to be asked again."""
        step = decide(
            error,
            tries=self._tries,
            calls=self._calls,
            has_next=bool(self._waiting),
            remaining_seconds=self.remaining_seconds,
            chance=self._chance,
        )
        match step:
            case AskAgain(wait_seconds):
                await asyncio.sleep(wait_seconds)
            case AskNext():
                self._leave()
            case GiveUp():
                self._target = None

    # What came of it

    @property
    def has_asked(self) -> bool:
        return bool(self._failed)

    @property
    def failure(self) -> ProviderError | None:
        """The last error. None if nobody was asked, for the retry budget is spent."""
        errors = self._failed or self._passed_over
        return errors[-1] if errors else None

    @property
    def is_worth_another_try(self) -> bool:
        # A wrong request is wrong everywhere and ends the matter; else, one target that may recover is enough.
        last = self.failure
        return last is None or last.failover and any(error.retryable for error in self._failed + self._passed_over)

    @property
    def retry_after_seconds(self) -> float | None:
        """How long nobody should be asked, as far as anybody said so."""
        errors = self._failed + self._passed_over
        floors = [error.retry_after_seconds for error in errors if error.retry_after_seconds is not None]
        return max(floors, default=None)

    def _leave(self) -> None:
        self._target, self._tries = self._waiting.pop(0) if self._waiting else None, 0

    async def _may_ask(self, target: Target) -> bool:
        if not await self._breaker.allows(target):
            self._passed_over.append(self._breaker.refusal(target))
            return False
        if self._asked_before or self._tries > 1:
            if not self._retries.take(target.provider.name):
                self._breaker.release(target)
                return False
        else:
            self._retries.first(target.provider.name)
        return True


@dataclass(slots=True)
class Asking:
    """A call under way."""

    target: Target
    breaker: Breaker
    has_answered: bool = False

    async def answers(self) -> None:
        """Take in that the target answers; more than once is as once."""
        if not self.has_answered:
            self.has_answered = True
            await self.breaker.report(self.target, None)

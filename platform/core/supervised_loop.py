"""Supervision of the loops of a worker process: a step that fails is logged, and its loop continues.

    step succeeded ──▶ pause ──▶ next step               the first success after an outage logs the recovery, once
    step failed    ┬─▶ outage: Postgres or Redis is unavailable; logged once, when it begins; pause with backoff
                   └─▶ any other error: logged each time, with its traceback

No exception ends a loop: a worker process without its loops would stay alive and do nothing.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

R = TypeVar("R")

log = structlog.get_logger(__name__)


class LoopSupervisor:
    """Runs steps of loops and tracks outages of the services they need. Loops that need the same service share one.

    A step that succeeds ends an outage, so each step must use the service: one without work to do must not be run.

    Args:
        unavailable_event, recovered_event: the log events at the beginning and the end of an outage.
        outage_errors: what counts as an outage; any other error is logged as `worker_step_failed`.
        recovery_seconds: a step that succeeds ends an outage only this long after the last failure. Where several loops
            share a supervisor, one may succeed while the service is still unavailable for the others.
        backoff_seconds: the pause after the first failure, doubled up to the second number; None for no backoff.
    """

    def __init__(
        self,
        *,
        unavailable_event: str,
        recovered_event: str,
        outage_errors: tuple[type[Exception], ...],
        recovery_seconds: float = 0.0,
        backoff_seconds: tuple[float, float] | None = None,
    ) -> None:
        self._unavailable_event, self._recovered_event = unavailable_event, recovered_event
        self._outage_errors = outage_errors
        self._recovery_seconds = recovery_seconds
        self._backoff_seconds = backoff_seconds
        self._is_unavailable = False
        self._pause_seconds: float | None = None
        self._failed_at = -math.inf

    @property
    def seconds_since_failure(self) -> float:
        """How long ago the last failure of an outage was; infinite if there was none."""
        return time.monotonic() - self._failed_at

    def pause_seconds(self, usual_seconds: float) -> float:
        """Return the pause before the next step: the backoff during an outage, otherwise `usual_seconds`."""
        return self._pause_seconds or usual_seconds

    async def run_forever(self, step: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
        """Run `step` again and again, with a pause after each, until canceled."""
        while True:
            await self.run(step)
            await asyncio.sleep(self.pause_seconds(pause_seconds))

    async def run(self, step: Callable[[], Awaitable[R]]) -> R | None:
        """Run one step and return its result; None if it failed."""
        try:
            result = await step()
        except Exception as error:
            self.on_failure(error)
            return None
        self.on_success()
        return result

    def on_failure(self, error: Exception) -> None:
        if not isinstance(error, self._outage_errors):
            log.error("worker_step_failed", exc_info=error)
            return
        if not self._is_unavailable:
            log.error(self._unavailable_event, error=type(error).__name__, reason=str(error).strip()[:200])
        self._is_unavailable = True
        self._failed_at = time.monotonic()
        if self._backoff_seconds:
            initial, most = self._backoff_seconds
            self._pause_seconds = min(self._pause_seconds * 2, most) if self._pause_seconds else initial

    def on_success(self) -> None:
        if self._is_unavailable and self.seconds_since_failure >= self._recovery_seconds:
            log.info(self._recovered_event)
            self._is_unavailable = False
            self._pause_seconds = None

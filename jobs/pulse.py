"""A worker's heartbeat, in a thread of its own: it goes on however busy the event loop is.

It does not go on without the loop, though. A loop that has not taken in a beat for a while is stuck, and what it
holds must become somebody else's.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import structlog

from core.threads import with_connection
from jobs import leases
from jobs.leases import Renewal

log = structlog.get_logger(__name__)

#: A loop that takes in nothing for so long is given up.
LOOP_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Taken:
    """This process has a new lease."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease goes on."""

    worker_id: UUID
    renewal: Renewal


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease had run out (we were frozen, or Postgres was away), and is never revived."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class Missed:
    """Postgres did not answer this beat."""

    error: Exception


Beat: TypeAlias = Taken | Renewed | Lost | Missed


class Pulse:
    """Beats every two seconds from `start` to `stop`, and tells the loop of each beat by `hear`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[Beat], None],
        report: Callable[[], Mapping[str, Any]],
        loop_patience_seconds: float = LOOP_PATIENCE_SECONDS,
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._make_report = report
        self._loop_patience_seconds = loop_patience_seconds
        self._worker_id: UUID | None = None
        #: What the loop said last, and when it did.
        self._report = report()
        self._heard_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; returns when the last beat has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            if begun - self._heard_at < self._loop_patience_seconds:
                self._tell(self._beat())
            else:
                log.critical("loop_stuck", seconds=round(begun - self._heard_at))
            if self._stopping.wait(max(0.0, leases.HEARTBEAT_SECONDS - (time.monotonic() - begun))):
                return

    def _beat(self) -> Beat:
        try:
            return with_connection(self._take_or_renew)
        except Exception as error:  # the outermost of this thread: without a pulse a worker is a shell
            return Missed(error)

    def _take_or_renew(self) -> Beat:
        if self._worker_id is None:
            self._worker_id = leases.take_lease()
            return Taken(self._worker_id)
        worker_id, renewal = self._worker_id, leases.renew_lease(self._worker_id, self._report)
        if renewal is None:
            self._worker_id = None
            return Lost(worker_id)
        return Renewed(worker_id, renewal)

    def _tell(self, beat: Beat) -> None:
        with suppress(RuntimeError):  # the loop has been closed since
            self._loop.call_soon_threadsafe(self._take_in, beat)

    def _take_in(self, beat: Beat) -> None:
        """In the loop."""
        self._heard_at = time.monotonic()
        self._hear(beat)
        self._report = self._make_report()

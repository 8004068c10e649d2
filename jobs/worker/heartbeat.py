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

from core.database_threads import run_with_connection
from jobs.worker import leases
from jobs.worker.leases import LeaseRenewal

log = structlog.get_logger(__name__)

#: A loop that takes in nothing for so long is given up.
LOOP_STALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class LeaseAcquired:
    """This process has a new lease."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The lease goes on."""

    worker_id: UUID
    renewal: LeaseRenewal


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The lease had run out (we were frozen, or Postgres was away), and is never revived."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class HeartbeatMissed:
    """Postgres did not answer this beat."""

    error: Exception


HeartbeatEvent: TypeAlias = LeaseAcquired | LeaseRenewed | LeaseLost | HeartbeatMissed


class Heartbeat:
    """Beats every two seconds from `start` to `stop`, and tells the loop of each beat by `on_event`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_event: Callable[[HeartbeatEvent], None],
        report: Callable[[], Mapping[str, Any]],
        loop_stall_seconds: float = LOOP_STALL_SECONDS,
    ) -> None:
        self._loop = loop
        self._on_event = on_event
        self._make_report = report
        self._loop_stall_seconds = loop_stall_seconds
        self._worker_id: UUID | None = None
        #: What the loop said last, and when it did.
        self._report = report()
        self._loop_alive_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; returns when the last beat has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            started_at = time.monotonic()
            if started_at - self._loop_alive_at < self._loop_stall_seconds:
                self._notify(self._beat())
            else:
                log.critical("event_loop_stalled", seconds=round(started_at - self._loop_alive_at))
            if self._stopping.wait(max(0.0, leases.HEARTBEAT_SECONDS - (time.monotonic() - started_at))):
                return

    def _beat(self) -> HeartbeatEvent:
        try:
            return run_with_connection(self._acquire_or_renew)
        except Exception as error:  # the outermost of this thread: without a pulse a worker is a shell
            return HeartbeatMissed(error)

    def _acquire_or_renew(self) -> HeartbeatEvent:
        if self._worker_id is None:
            self._worker_id = leases.acquire_lease()
            return LeaseAcquired(self._worker_id)
        worker_id, renewal = self._worker_id, leases.renew_lease(self._worker_id, self._report)
        if renewal is None:
            self._worker_id = None
            return LeaseLost(worker_id)
        return LeaseRenewed(worker_id, renewal)

    def _notify(self, beat: HeartbeatEvent) -> None:
        with suppress(RuntimeError):  # the loop has been closed since
            self._loop.call_soon_threadsafe(self._handle_in_loop, beat)

    def _handle_in_loop(self, beat: HeartbeatEvent) -> None:
        """In the loop."""
        self._loop_alive_at = time.monotonic()
        self._on_event(beat)
        self._report = self._make_report()

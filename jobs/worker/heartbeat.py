"""The heartbeat of a worker, in its own thread, so that a busy event loop does not delay it.

It stops if the event loop stalls: a loop that has not processed a heartbeat for `LOOP_STALL_SECONDS` lets its lease
expire, so that other workers get its jobs.
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

#: A loop that processes no heartbeat for this long counts as stalled.
LOOP_STALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class LeaseAcquired:
    """The process acquired a new lease."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The lease was extended."""

    worker_id: UUID
    renewal: LeaseRenewal


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The lease had expired (the process was frozen, or Postgres unavailable), and is never revived."""

    worker_id: UUID


@dataclass(frozen=True, slots=True)
class HeartbeatMissed:
    """Postgres did not answer this heartbeat."""

    error: Exception


HeartbeatEvent: TypeAlias = LeaseAcquired | LeaseRenewed | LeaseLost | HeartbeatMissed


class Heartbeat:
    """Renews the lease every two seconds from `start` to `stop`, and calls `on_event` in the loop each time."""

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
        #: The last report of the loop, and when it made it.
        self._report = report()
        self._loop_alive_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and return when the last heartbeat has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            started_at = time.monotonic()
            if started_at - self._loop_alive_at < self._loop_stall_seconds:
                self._notify(self._beat())
            else:
                log.critical("event_loop_stalled", seconds=round(started_at - self._loop_alive_at))
                # A process that was frozen as a whole looks stalled too, and its loop has nothing to run that says so.
                self._call_in_loop(self._record_alive)
            if self._stopping.wait(max(0.0, leases.HEARTBEAT_SECONDS - (time.monotonic() - started_at))):
                return

    def _beat(self) -> HeartbeatEvent:
        try:
            return run_with_connection(self._acquire_or_renew)
        except Exception as error:  # the outermost handler of this thread, which must survive
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
        self._call_in_loop(self._handle_in_loop, beat)

    def _call_in_loop(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed since
            self._loop.call_soon_threadsafe(function, *args)

    def _record_alive(self) -> None:
        """Note that the event loop runs. Runs in the event loop."""
        self._loop_alive_at = time.monotonic()

    def _handle_in_loop(self, beat: HeartbeatEvent) -> None:
        """Process the event. Runs in the event loop."""
        self._record_alive()
        self._on_event(beat)
        self._report = self._make_report()

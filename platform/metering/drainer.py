"""Drainer: the part of a worker process that moves usage records of live calls from Redis to Postgres.

It survives outages of both, and logs each outage once. Nothing is lost meanwhile: records stay in Redis.
"""

import asyncio
import time
from contextlib import suppress
from functools import partial

import redis
from django.conf import settings

from core.database_threads import DATABASE_UNAVAILABLE, DatabaseThreadPool
from core.redis import RedisUnavailable
from core.supervised_loop import LoopSupervisor
from metering import buffer

POLL_SECONDS = 0.5
#: Interval of the search for killed processes, which scans all keys.
ORPHAN_CHECK_SECONDS = 5.0
#: Timeout of each Redis command. A batch is half a megabyte.
REDIS_TIMEOUT_SECONDS = 5.0
#: Pause after Postgres or Redis was unavailable.
OUTAGE_RETRY_SECONDS = 2.0


class UsageDrainer:
    """Drains the buffer and closes orphaned calls until stopped. `run` may be called once."""

    def __init__(self, url: str | None = None, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._server = redis.Redis.from_url(
            url or settings.REDIS_URL,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
        )
        self._threads = DatabaseThreadPool("drainer", 1)
        self._poll_seconds = poll_seconds
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._orphans_checked_at = -ORPHAN_CHECK_SECONDS
        self._supervisor = LoopSupervisor(
            unavailable_event="usage_drainer_unavailable",
            recovered_event="usage_drainer_recovered",
            outage_errors=(*DATABASE_UNAVAILABLE, RedisUnavailable),
            backoff_seconds=(OUTAGE_RETRY_SECONDS, OUTAGE_RETRY_SECONDS),
        )
        #: Records moved by this process.
        self.drained = 0
        #: Open calls of killed processes, closed by this process.
        self.orphans_closed = 0

    def stop(self) -> None:
        """Make `run` drain once more and return. May be called from any thread, at any time."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)
        else:
            self._stopping.set()

    async def run(self) -> None:
        """Drain until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                is_last = self._stopping.is_set()
                await self._supervisor.run(partial(self._threads.run, self._step))
                if is_last:
                    return
                await self._pause()
        finally:
            await asyncio.to_thread(self._close)

    def _step(self) -> None:
        self.drained += buffer.drain(self._server)
        if time.monotonic() - self._orphans_checked_at >= ORPHAN_CHECK_SECONDS:
            self._orphans_checked_at = time.monotonic()
            self.orphans_closed += buffer.close_orphaned_calls(self._server)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._supervisor.pause_seconds(self._poll_seconds)):
                await self._stopping.wait()

    def _close(self) -> None:
        self._threads.close()
        self._server.close()

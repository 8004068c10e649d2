"""What the live path of one process holds: made in its event loop at the first live request, closed with the server."""

import asyncio
import random
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings

from api.live.job_states import JobStates
from api.live.leases import Leases
from core import redis
from core.threads import DatabaseThreads
from inference.breaker import Breakers
from inference.clients import Clients
from inference.retry_budget import RetryBudgets
from inference.routing import Glances
from streams.process import ProcessMark
from streams.registry import LiveStreams

log = structlog.get_logger(__name__)

#: Threads for what the live path seldom needs of Postgres: whose key this is, and where a model is served.
THREADS = 2


class LiveDesk:
    """One for each event loop."""

    def __init__(self) -> None:
        self.server = redis.client(settings.REDIS_URL)
        self.threads = DatabaseThreads("live", THREADS)
        self.glances = Glances(self.threads)
        self.clients = Clients()
        self.budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self.breakers = Breakers(settings.REDIS_URL)
        self.chance = random.Random()  # noqa: S311 (jitter and weights, no secrets)
        self.mark = ProcessMark(self.server)
        self.leases = Leases(self.server, self.mark.id)
        self.job_states = JobStates(self.server, self.threads)
        self.streams = LiveStreams(
            self.server,
            self.mark,
            grace_seconds=settings.STREAM_GRACE_SECONDS,
            ttl_seconds=settings.STREAM_LOG_SECONDS,
            max_bytes=settings.STREAM_LOG_BYTES,
        )
        #: Set when this process is told to stop.
        self.draining = asyncio.Event()
        #: Ends the server, where that does not wait for us.
        self.ending: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[Any]] = set()

    @property
    def is_draining(self) -> bool:
        return self.draining.is_set()

    async def start(self) -> None:
        await self.mark.start()
        self.leases.start()

    def do_beside(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do what nobody waits for, and let nothing cut it off but the end of the process."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def drain(self) -> None:
        """Let nothing more in; what runs may end within the drain time. Streams are then broken off, with a word."""
        self.draining.set()
        await asyncio.gather(
            self.streams.drain(settings.LIVE_DRAIN_SECONDS), self.leases.wait_until_empty(settings.LIVE_DRAIN_SECONDS)
        )

    async def close(self) -> None:
        """End what runs: streams get the drain time, accounts are written, then connections close."""
        await self.drain()
        self.job_states.stop()
        if self._beside:
            await asyncio.wait(self._beside, timeout=2)
        await self.leases.stop()
        await self.mark.stop()
        await self.breakers.close()
        await self.clients.close()
        self.threads.close()
        await redis.close_clients()


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, "asyncio.Task[LiveDesk]"] = WeakKeyDictionary()


async def live_desk(*, server_waits: bool = False) -> LiveDesk:
    """Return the running loop's desk.

    `server_waits` for it to be closed before it ends; one that knows no lifespan does not.
    """
    loop = asyncio.get_running_loop()
    made = _desks.get(loop)
    if made is None:
        made = _desks[loop] = loop.create_task(_made(server_waits=server_waits))
    # Shielded: who asked first may go away.
    return made.result() if made.done() else await asyncio.shield(made)


def is_draining() -> bool:
    """Say whether the running loop's desk lets nothing more in."""
    made = _desks.get(asyncio.get_running_loop())
    return made is not None and made.done() and not made.cancelled() and made.result().is_draining


async def close_live_desk() -> None:
    """Close the running loop's desk, if there is one."""
    if task := _desks.pop(asyncio.get_running_loop(), None):
        await (await task).close()


async def _made(*, server_waits: bool) -> LiveDesk:
    desk = LiveDesk()
    await desk.start()
    if threading.current_thread() is threading.main_thread():
        _drain_at_the_signal(desk, server_waits=server_waits)
    return desk


def _drain_at_the_signal(desk: LiveDesk, *, server_waits: bool) -> None:
    """Begin to drain when the server is told to stop, not only when its last connection has ended.

    A server that does not wait for us cuts its connections at once; it hears of the signal when all here has ended.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    async def end() -> None:
        await desk.close()
        signal.raise_signal(signal.SIGTERM)

    def begin() -> None:
        if server_waits:
            desk.do_beside(desk.drain())
        else:
            desk.ending = loop.create_task(end())

    def stop(number: int, _: FrameType | None) -> None:
        # From now on, also at a second signal, the server is told.
        signal.signal(number, before)
        loop.call_soon_threadsafe(begin)
        if server_waits:
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, stop)

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

from api.live.job_state_poller import JobStatePoller
from api.live.leases import RequestLeases
from core import redis
from core.database_threads import DatabaseThreadPool
from core.tasks import BackgroundTasks
from inference.circuit_breaker import RedisCircuitBreaker
from inference.clients import ProviderClients
from inference.retry_budget import RetryBudgets
from streams.process import ProcessHeartbeat
from streams.registry import ProcessStreams, StreamSupervisor

log = structlog.get_logger(__name__)

#: Threads for what the live path seldom needs of Postgres: whose key this is, and where a model is served.
DATABASE_THREADS = 2


class LiveRuntime:
    """One for each event loop."""

    def __init__(self) -> None:
        self.server = redis.client(settings.REDIS_URL)
        self.threads = DatabaseThreadPool("live", DATABASE_THREADS)
        self.clients = ProviderClients()
        self.retry_budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self.breakers = RedisCircuitBreaker(settings.REDIS_URL)
        self.rng = random.Random()  # noqa: S311 (jitter and weights, no secrets)
        #: The link between the tasks that write streams and those that read them.
        self.process_streams = ProcessStreams(self.server)
        self.heartbeat = ProcessHeartbeat(self.process_streams)
        self.leases = RequestLeases(self.server, self.heartbeat.id)
        self.job_state_poller = JobStatePoller(self.server, self.threads)
        self.streams = StreamSupervisor(
            self.process_streams,
            grace_seconds=settings.STREAM_GRACE_SECONDS,
            ttl_seconds=settings.STREAM_LOG_TTL_SECONDS,
            max_bytes=settings.STREAM_LOG_MAX_BYTES,
        )
        #: Set when this process is told to stop.
        self.draining = asyncio.Event()
        #: Ends the server, where that does not wait for us.
        self.shutdown_task: asyncio.Task[None] | None = None
        self._background_tasks = BackgroundTasks()

    @property
    def is_draining(self) -> bool:
        return self.draining.is_set()

    async def start(self) -> None:
        await self.heartbeat.start()
        self.leases.start()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do what nobody waits for, and let nothing cut it off but the end of the process."""
        return self._background_tasks.spawn(work)

    async def drain(self) -> None:
        """Let nothing more in; what runs may end within the drain time. Streams are then broken off, with a word."""
        self.draining.set()
        await asyncio.gather(
            self.streams.drain(settings.LIVE_DRAIN_SECONDS), self.leases.wait_until_empty(settings.LIVE_DRAIN_SECONDS)
        )

    async def close(self) -> None:
        """End what runs: streams get the drain time, accounts are written, then connections close."""
        await self.drain()
        self.job_state_poller.stop()
        await self._background_tasks.wait(2)
        await self.leases.stop()
        await self.heartbeat.stop()
        await self.breakers.close()
        await self.clients.close()
        self.threads.close()
        await redis.close_clients()


_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, "asyncio.Task[LiveRuntime]"] = WeakKeyDictionary()


async def live_runtime(*, server_waits: bool = False) -> LiveRuntime:
    """Return the running loop's desk.

    `server_waits` for it to be closed before it ends; one that knows no lifespan does not.
    """
    loop = asyncio.get_running_loop()
    made = _runtimes.get(loop)
    if made is None:
        made = _runtimes[loop] = loop.create_task(_create_runtime(server_waits=server_waits))
    # Shielded: who asked first may go away.
    return made.result() if made.done() else await asyncio.shield(made)


def is_draining() -> bool:
    """Say whether the running loop's desk lets nothing more in."""
    made = _runtimes.get(asyncio.get_running_loop())
    return made is not None and made.done() and not made.cancelled() and made.result().is_draining


async def close_live_runtime() -> None:
    """Close the running loop's desk, if there is one."""
    if task := _runtimes.pop(asyncio.get_running_loop(), None):
        await (await task).close()


async def _create_runtime(*, server_waits: bool) -> LiveRuntime:
    runtime = LiveRuntime()
    await runtime.start()
    if threading.current_thread() is threading.main_thread():
        _drain_on_sigterm(runtime, server_waits=server_waits)
    return runtime


def _drain_on_sigterm(runtime: LiveRuntime, *, server_waits: bool) -> None:
    """Begin to drain when the server is told to stop, not only when its last connection has ended.

    A server that does not wait for us cuts its connections at once; it hears of the signal when all here has ended.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    async def end() -> None:
        await runtime.close()
        signal.raise_signal(signal.SIGTERM)

    def begin() -> None:
        if server_waits:
            runtime.spawn(runtime.drain())
        else:
            runtime.shutdown_task = loop.create_task(end())

    def stop(number: int, _: FrameType | None) -> None:
        # From now on, also at a second signal, the server is told.
        signal.signal(number, before)
        loop.call_soon_threadsafe(begin)
        if server_waits:
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, stop)

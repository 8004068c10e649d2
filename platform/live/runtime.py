"""What the live requests of one process share: connections, caches, leases and running streams.

One `LiveRuntime` per event loop, created at start-up or by the first live request, and closed with the server.
"""

import asyncio
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings

from core import redis
from core.database_threads import DatabaseThreadPool
from core.tasks import BackgroundTasks
from inference.circuit_breaker import RedisCircuitBreaker
from inference.clients import ProviderClients
from inference.retry_budget import RetryBudgets
from live.leases import RequestLeases
from streams.process import ProcessHeartbeat
from streams.registry import ProcessStreams, StreamSupervisor

#: Threads for the few Postgres reads of a live request: credentials and routing, both cached.
DATABASE_THREADS = 2
#: How long to wait for settlements and other background tasks before connections close.
BACKGROUND_TIMEOUT_SECONDS = 2


class LiveRuntime:
    """One per event loop; see `live_runtime`."""

    def __init__(self) -> None:
        self.redis = redis.client(settings.REDIS_URL)
        self.threads = DatabaseThreadPool("live", DATABASE_THREADS)
        self.clients = ProviderClients()
        self.retry_budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self.breakers = RedisCircuitBreaker(settings.REDIS_URL)
        self.rng = random.Random()  # noqa: S311 (jitter and weights, no secrets)
        #: The link between the tasks that write streams and those that read them.
        self.process_streams = ProcessStreams(self.redis)
        self.heartbeat = ProcessHeartbeat(self.process_streams)
        self.leases = RequestLeases(self.redis, self.heartbeat.id)
        self.streams = StreamSupervisor(
            self.process_streams,
            grace_seconds=settings.STREAM_GRACE_SECONDS,
            ttl_seconds=settings.STREAM_LOG_TTL_SECONDS,
            max_bytes=settings.STREAM_LOG_MAX_BYTES,
        )
        #: Set when graceful shutdown begins.
        self.draining = asyncio.Event()
        #: Closes this runtime and then stops a server that does not wait for it.
        self.shutdown_task: asyncio.Task[None] | None = None
        self._background_tasks = BackgroundTasks()
        self._close_callbacks: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_draining(self) -> bool:
        return self.draining.is_set()

    async def start(self) -> None:
        await self.heartbeat.start()
        self.leases.start()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run work in the background. Only the end of the process cancels it."""
        return self._background_tasks.spawn(work)

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this once no request and no stream runs any more, and wait for it before the connections close."""
        self._close_callbacks.append(callback)

    async def drain(self) -> None:
        """Admit nothing more, and wait for requests and streams up to LIVE_DRAIN_SECONDS. Then cancel the streams."""
        self.draining.set()
        await asyncio.gather(
            self.streams.drain(settings.LIVE_DRAIN_SECONDS), self.leases.wait_until_empty(settings.LIVE_DRAIN_SECONDS)
        )

    async def close(self) -> None:
        """Shut down gracefully: drain, settle what ran, then close the connections."""
        await self.drain()
        for callback in self._close_callbacks:
            await callback()
        await self._background_tasks.wait(BACKGROUND_TIMEOUT_SECONDS)
        await self.leases.stop()
        await self.heartbeat.stop()
        await self.breakers.close()
        await self.clients.close()
        self.threads.close()
        await redis.close_clients()


_runtimes: WeakKeyDictionary[asyncio.AbstractEventLoop, "asyncio.Task[LiveRuntime]"] = WeakKeyDictionary()


async def live_runtime(*, server_waits: bool = False) -> LiveRuntime:
    """Return the runtime of the running event loop; the first call creates it.

    `server_waits`: the server speaks the ASGI lifespan protocol, so it waits for `close_live_runtime` before it exits.
    """
    loop = asyncio.get_running_loop()
    creation = _runtimes.get(loop)
    if creation is None:
        creation = _runtimes[loop] = loop.create_task(_create_runtime(server_waits=server_waits))
    # Shielded, because the request that created it may be canceled.
    return creation.result() if creation.done() else await asyncio.shield(creation)


def is_draining() -> bool:
    """Whether the running loop's runtime exists and admits nothing more."""
    creation = _runtimes.get(asyncio.get_running_loop())
    return creation is not None and creation.done() and not creation.cancelled() and creation.result().is_draining


async def close_live_runtime() -> None:
    """Close the running loop's runtime, if it exists."""
    if creation := _runtimes.pop(asyncio.get_running_loop(), None):
        await (await creation).close()


async def _create_runtime(*, server_waits: bool) -> LiveRuntime:
    runtime = LiveRuntime()
    await runtime.start()
    if threading.current_thread() is threading.main_thread():
        _drain_on_sigterm(runtime, server_waits=server_waits)
    return runtime


def _drain_on_sigterm(runtime: LiveRuntime, *, server_waits: bool) -> None:
    """Start graceful shutdown at SIGTERM, not when the server's last connection has ended.

    A server that does not wait for the runtime would cut its connections immediately, so it gets the signal only after
    the runtime has closed.
    """
    loop, previous_handler = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    async def close_then_stop_server() -> None:
        await runtime.close()
        signal.raise_signal(signal.SIGTERM)

    def begin() -> None:
        if server_waits:
            runtime.spawn(runtime.drain())
        else:
            runtime.shutdown_task = loop.create_task(close_then_stop_server())

    def on_sigterm(number: int, _: FrameType | None) -> None:
        # The next signal, ours or an impatient operator's, goes to the server.
        signal.signal(number, previous_handler)
        loop.call_soon_threadsafe(begin)
        if server_waits:
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, on_sigterm)

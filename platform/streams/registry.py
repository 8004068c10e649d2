"""The streams that this process runs: started, counted, canceled when nobody reads them, and ended when it stops."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import redis.asyncio
import structlog

from core.redis import RedisUnavailable, translate_redis_errors
from streams.entries import StreamEnd, StreamInfo, channel_name
from streams.errors import StreamsClosed
from streams.live import LocalStream
from streams.log import EventLogWriter
from streams.process import ProcessHeartbeat

log = structlog.get_logger(__name__)

#: How often one looks for readers in other processes, and between the two looks that must agree that there are none:
#: one may be reconnecting.
READER_CHECK_SECONDS = 0.5
#: For streams that are canceled as the process stops, to say so to their readers and to the log.
CANCEL_TIMEOUT_SECONDS = 5.0


class StreamSupervisor:
    """One for each process."""

    def __init__(
        self,
        server: redis.asyncio.Redis,
        process: ProcessHeartbeat,
        *,
        grace_seconds: float,
        ttl_seconds: int,
        max_bytes: int,
    ) -> None:
        self._server = server
        self._process = process
        self._grace_seconds = grace_seconds
        self._ttl_seconds = ttl_seconds
        self._max_bytes = max_bytes
        self._running: dict[asyncio.Task[None], EventLogWriter] = {}
        self._reader_checks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    def __len__(self) -> int:
        """How many are running."""
        return len(self._running)

    def start(
        self, about: StreamInfo, run: Callable[[EventLogWriter], Awaitable[None]], *, detached: bool = False
    ) -> LocalStream:
        """Let `run` write a stream. Unless it is detached, it is canceled when nobody reads it for the grace time.

        `run` ends it by `writer.finish`; what leaves without that has ended in an error. Raises `StreamsClosed`.
        """
        if self._is_draining:
            raise StreamsClosed("This process is shutting down and starts no new streams.")
        writer = EventLogWriter(
            self._server,
            about,
            process=self._process,
            ttl_seconds=self._ttl_seconds,
            max_bytes=self._max_bytes,
            detached=detached,
        )
        stream = writer.stream
        task = asyncio.get_running_loop().create_task(_run_to_end(writer, run), name=f"stream {about.id}")
        self._running[task] = writer
        task.add_done_callback(self._on_done)
        stream.set_task(task, self._on_unread)
        self._on_unread(stream)
        return stream

    async def wait_until_visible(self, stream: LocalStream) -> bool:
        """Wait until other processes can find a stream that was started here. False when Redis is away."""
        for writer in self._running.values():
            if writer.stream is stream:
                return await writer.flushed()
        return True

    async def drain(self, seconds: float) -> None:
        """Start no more; let those that run end in so many seconds, and cancel the rest."""
        self._is_draining = True
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)
        for writer in list(self._running.values()):
            writer.stream.cancel("shutdown")
        if self._running:
            log.warning("streams_canceled_at_shutdown", streams=len(self._running))
            await asyncio.wait(list(self._running), timeout=CANCEL_TIMEOUT_SECONDS)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        # A task that is canceled before its first step never runs, and so cannot say how it ended.
        self._running.pop(task).end(StreamEnd("canceled"))

    def _on_unread(self, stream: LocalStream) -> None:
        """Its last reader has left, or none has come yet."""
        if not stream.detached:
            asyncio.get_running_loop().call_later(self._grace_seconds, self._check_readers, stream, stream.unread_since)

    def _check_readers(self, stream: LocalStream, since: float | None) -> None:
        # By what it was unread since, not by how long ago that is: the timer of a busy loop rings too early.
        if since is not None and stream.unread_since == since:
            task = asyncio.get_running_loop().create_task(self._cancel_unread(stream))
            self._reader_checks.add(task)
            task.add_done_callback(self._reader_checks.discard)

    async def _cancel_unread(self, stream: LocalStream) -> None:
        """Cancel it, once nobody has read it in any process for the grace time."""
        followed_at = time.monotonic() - stream.unread_seconds
        while stream.unread_seconds:
            if await self._has_remote_readers(stream):
                followed_at = time.monotonic()
            elif time.monotonic() - followed_at >= self._grace_seconds:
                stream.cancel("unread")
                return
            await asyncio.sleep(READER_CHECK_SECONDS)

    async def _has_remote_readers(self, stream: LocalStream) -> bool:
        """Say whether another process reads it. While Redis is away, none can."""
        for look in range(2):
            if look:
                await asyncio.sleep(READER_CHECK_SECONDS)
            if await self._has_subscriber(stream):
                return True
        return False

    async def _has_subscriber(self, stream: LocalStream) -> bool:
        try:
            with translate_redis_errors():
                ((_, count),) = await self._server.pubsub_numsub(channel_name(stream.id))
        except RedisUnavailable:
            return False
        return bool(count)


async def _run_to_end(writer: EventLogWriter, run: Callable[[EventLogWriter], Awaitable[None]]) -> None:
    """Run to the end, whatever happens: no reader is left waiting."""
    try:
        await run(writer)
    except asyncio.CancelledError:
        await writer.finish(StreamEnd("canceled"))
    except Exception:
        log.exception("stream_failed", stream=writer.stream.id)
    finally:
        await writer.finish(StreamEnd("error"))

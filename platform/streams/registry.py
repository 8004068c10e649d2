"""Registry of the streams of this process: the explicit link between the task that writes a stream and its readers.

`ProcessStreams` is made once per event loop (by the live runtime of a web process, by the attempt streams of a worker)
and passed to everything that writes or reads streams. `StreamSupervisor` starts the writer tasks of live streams,
cancels those without a reader, and drains them at shutdown.

    writer task: StreamSupervisor.start -> ProcessStreams.open_writer -> EventLogWriter.append -> LocalStream
    reader task: streams.reader.follow  -> ProcessStreams.find_stream -> LocalSource.next      <- LocalStream
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import redis.asyncio
import structlog

from core.group_commit import GroupCommitter
from core.ids import new_uuid, to_public
from core.redis import RedisUnavailable, translate_redis_errors
from core.tasks import BackgroundTasks
from streams.buffer import LocalStream
from streams.entries import StreamEnd, StreamInfo, channel_name
from streams.errors import StreamsClosed
from streams.subscriptions import StreamSubscriptions
from streams.writer import EventLogWriter, LogFlusher

log = structlog.get_logger(__name__)

RedisCommand: TypeAlias = tuple[Any, ...]

#: Each command may return megabytes of a log.
MAX_COMMANDS_PER_PIPELINE, MAX_CONCURRENT_PIPELINES = 16, 4
#: How often readers in other processes are counted, and the pause between the two counts that must agree that there are
#: none: one reader may be reconnecting.
READER_CHECK_SECONDS = 0.5
#: For streams that are canceled at shutdown: to send their readers an error, and to write their end to the log.
CANCEL_TIMEOUT_SECONDS = 5.0


class ProcessStreams:
    """All streams that this process writes, and its connections to the logs of all others it reads.

    One per process and Redis, in one event loop. `streams.process.ProcessHeartbeat` makes it visible to other
    processes under `process_id`, and closes it.
    """

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self.server = server
        self.process_id = to_public("process", new_uuid())
        #: By stream id, oldest first: streams that run, and streams that ended but whose end is not in the log yet.
        #: Unlike the tasks of `StreamSupervisor`, this includes streams that others write, such as a worker's attempts.
        self.writers: dict[str, EventLogWriter] = {}
        self.flusher = LogFlusher(server)
        self.subscriptions = StreamSubscriptions(server)
        # Thousands of clients that reconnect together neither take every connection nor wait for each other in turn.
        self._batcher: GroupCommitter[RedisCommand, Any] = GroupCommitter(
            self._run_pipeline,
            max_group_size=MAX_COMMANDS_PER_PIPELINE,
            max_concurrent_groups=MAX_CONCURRENT_PIPELINES,
            group_errors=(RedisUnavailable,),
        )

    def open_writer(
        self, info: StreamInfo, *, ttl_seconds: int, max_bytes: int, detached: bool = False
    ) -> EventLogWriter:
        """Return a writer for a new stream, which readers of this process find from now on, and others in a moment."""
        writer = EventLogWriter(
            info,
            flusher=self.flusher,
            process_id=self.process_id,
            ttl_seconds=ttl_seconds,
            max_bytes=max_bytes,
            detached=detached,
            on_dropped=lambda stream_id: self.writers.pop(stream_id, None),
        )
        self.writers[info.id] = writer
        self.flusher.schedule(writer)
        return writer

    def find_stream(self, stream_id: str) -> LocalStream | None:
        """Return a stream that this process writes, for its readers; None for all others."""
        writer = self.writers.get(stream_id)
        return writer.stream if writer else None

    async def query(self, *command: Any) -> Any:
        """Run one Redis command, batched with those of other readers. Raises `RedisUnavailable`."""
        result = await self._batcher.submit(command)
        if isinstance(result, Exception):
            raise RedisUnavailable(f"{type(result).__name__}: {result}"[:200]) from result
        return result

    async def close(self) -> None:
        """Stop the flusher and the subscriptions."""
        await self.flusher.stop()
        await self.subscriptions.stop()

    async def _run_pipeline(self, commands: Sequence[RedisCommand]) -> Sequence[Any]:
        with translate_redis_errors():
            pipeline: Any = self.server.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results


class StreamSupervisor:
    """Runs the writer tasks of this process's live streams. One per process.

    It knows the streams whose task it has started and that still run; `ProcessStreams.writers` knows all of them.
    """

    def __init__(self, streams: ProcessStreams, *, grace_seconds: float, ttl_seconds: int, max_bytes: int) -> None:
        self._streams = streams
        self._grace_seconds = grace_seconds
        self._ttl_seconds = ttl_seconds
        self._max_bytes = max_bytes
        self._running: dict[asyncio.Task[None], EventLogWriter] = {}
        self._reader_checks = BackgroundTasks()
        self._is_draining = False

    def __len__(self) -> int:
        """Number of running streams."""
        return len(self._running)

    def start(
        self, info: StreamInfo, run: Callable[[EventLogWriter], Awaitable[None]], *, detached: bool = False
    ) -> LocalStream:
        """Start the writer task of a stream: `run(writer)`, which must end the stream by `writer.finish`.

        A task that ends without that gives the stream the end `error`. Its readers are other tasks, which find the
        stream by its id (`streams.reader.follow`). Unless detached, the stream is canceled when it has had no reader
        in any process for the grace time. Raises `StreamsClosed`.
        """
        if self._is_draining:
            raise StreamsClosed("This process is shutting down and starts no new streams.")
        writer = self._streams.open_writer(
            info, ttl_seconds=self._ttl_seconds, max_bytes=self._max_bytes, detached=detached
        )
        stream = writer.stream
        task = asyncio.get_running_loop().create_task(_run_to_end(writer, run), name=f"stream {info.id}")
        self._running[task] = writer
        task.add_done_callback(self._on_done)
        stream.set_task(task, self._on_unread)
        self._on_unread(stream)
        return stream

    async def wait_until_visible(self, stream: LocalStream) -> bool:
        """Wait until other processes can find a stream started here. False when Redis is unavailable."""
        for writer in self._running.values():
            if writer.stream is stream:
                return await writer.wait_until_flushed()
        return True

    async def drain(self, seconds: float) -> None:
        """Graceful shutdown: start no more streams, let the running ones end within `seconds`, cancel the rest."""
        self._is_draining = True
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)
        for writer in list(self._running.values()):
            writer.stream.cancel("shutdown")
        if self._running:
            log.warning("streams_canceled_at_shutdown", streams=len(self._running))
            await asyncio.wait(list(self._running), timeout=CANCEL_TIMEOUT_SECONDS)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        # A task that is canceled before its first step never runs, and so could not end its stream.
        self._running.pop(task).end(StreamEnd("canceled"))

    def _on_unread(self, stream: LocalStream) -> None:
        """Start the grace time: the last local reader has left, or none has come yet."""
        if not stream.detached:
            asyncio.get_running_loop().call_later(self._grace_seconds, self._check_readers, stream, stream.unread_since)

    def _check_readers(self, stream: LocalStream, since: float | None) -> None:
        # Compares the start of the unread time, not its length: the timer of a busy loop may fire too early.
        if since is not None and stream.unread_since == since:
            self._reader_checks.spawn(self._cancel_unread(stream), name="stream-reader-check")

    async def _cancel_unread(self, stream: LocalStream) -> None:
        """Cancel the stream once it has had no reader in any process for the grace time."""
        followed_at = time.monotonic() - stream.unread_seconds
        while stream.unread_seconds:
            if await self._has_remote_readers(stream):
                followed_at = time.monotonic()
            elif time.monotonic() - followed_at >= self._grace_seconds:
                stream.cancel("unread")
                return
            await asyncio.sleep(READER_CHECK_SECONDS)

    async def _has_remote_readers(self, stream: LocalStream) -> bool:
        """Return whether another process reads the stream. While Redis is unavailable, none can."""
        for check in range(2):
            if check:
                await asyncio.sleep(READER_CHECK_SECONDS)
            if await self._has_subscriber(stream):
                return True
        return False

    async def _has_subscriber(self, stream: LocalStream) -> bool:
        try:
            with translate_redis_errors():
                ((_, count),) = await self._streams.server.pubsub_numsub(channel_name(stream.id))
        except RedisUnavailable:
            return False
        return bool(count)


async def _run_to_end(writer: EventLogWriter, run: Callable[[EventLogWriter], Awaitable[None]]) -> None:
    """Run the writer task, and give the stream an end whatever happens, so that no reader waits forever."""
    try:
        await run(writer)
    except asyncio.CancelledError:
        await writer.finish(StreamEnd("canceled"))
    except Exception as error:
        log.error("stream_failed", stream=writer.stream.id, exc_info=error)
    finally:
        await writer.finish(StreamEnd("error"))

"""Write path of streams: `EventLogWriter` appends in memory, `LogFlusher` group-commits all writers to Redis.

An append is visible to readers of this process immediately, and never waits for Redis. A few milliseconds later the
flusher writes what all streams of the process have appended in one round trip (`append.lua`), which also publishes the
entries to readers in other processes. The log is at least once: a write whose reply was lost is repeated, and readers
drop the overlap (`streams.entries.merge_entries`). The read path is `streams.reader`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis.asyncio
import structlog
from msgspec import Struct
from msgspec.structs import astuple

from core.lua import lua_indexes
from core.redis import REPLY_TIMEOUT_SECONDS, LuaScript, RedisUnavailable
from core.tasks import cancel_and_wait
from streams.buffer import LocalStream
from streams.entries import LogEntry, StreamEnd, StreamInfo, StreamRecord, encode, log_key, split_into_entries

log = structlog.get_logger(__name__)


class AppendArguments(Struct, frozen=True, gc=False):
    """The arguments of `append.lua` for one entry."""

    #: Packed; empty if only the record is written.
    entry: bytes
    #: Packed; empty to leave it unchanged.
    record: bytes
    entry_id: str
    oldest_id: str
    #: Of log and record.
    ttl_seconds: int
    #: 1: log and record must exist already.
    must_exist: int


APPEND_SCRIPT = LuaScript(
    lua_indexes(AppendArguments, "FIELD_COUNT") + (Path(__file__).parent / "append.lua").read_text()
)

#: A stream with more unwritten bytes is flushed without waiting for the interval.
FLUSH_NOW_BYTES = 64 * 1024
#: How long events wait for others to share a round trip. Only readers in other processes notice.
FLUSH_INTERVAL_SECONDS = 0.025
#: Redis runs nothing else during a script, and other commands wait for the connection, so round trips are short.
MAX_PIPELINE_BYTES, MAX_PIPELINE_ENTRIES = 256 * 1024, 256
#: Limit of `wait_until_flushed`.
FLUSH_TIMEOUT_SECONDS = 2 * REPLY_TIMEOUT_SECONDS
#: A running stream is kept at least this long after its last event, however short the TTL of ended streams is.
MIN_RUNNING_TTL_SECONDS = 3600

#: Pause between attempts to reach an unavailable Redis.
OUTAGE_RETRY_SECONDS = 0.5
#: Bounds for the events of streams that ended while Redis is unavailable.
OUTAGE_RETENTION_SECONDS, OUTAGE_RETENTION_BYTES = 60.0, 64 * 1024 * 1024
#: Beyond these bounds only the ends are kept, and at most this many.
MAX_PENDING_ENDS = 20_000


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """One entry, or a record alone, to be written: a key and the arguments of `append.lua`."""

    writer: "EventLogWriter"
    key: str
    arguments: AppendArguments
    entry: LogEntry | None
    size: int


class EventLogWriter:
    """Writes one stream. Only `wait_until_flushed` and `finish` wait for Redis, and those with a timeout.

    Made by `streams.registry.ProcessStreams.open_writer`, which also makes `stream` findable for the readers of this
    process; `on_dropped` takes it out again, once the log has the end or cannot have it.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        flusher: "LogFlusher",
        process_id: str,
        ttl_seconds: int,
        max_bytes: int,
        detached: bool,
        on_dropped: Callable[[str], object],
    ) -> None:
        self.stream = LocalStream(info, process=process_id, max_bytes=max_bytes, detached=detached)
        self._flusher = flusher
        self._ttl_seconds = ttl_seconds
        self._on_dropped = on_dropped
        self._key = log_key(info.id)
        #: Number of the last event in the log; 0 also after the log was lost and must be written again.
        self._written = 0
        self._written_bytes = 0
        self._record_due = True
        self._end_written = False
        self._log_was_lost = False
        self._error = ""
        self._waiting: list[asyncio.Future[bool]] = []
        self._in_flight: list[asyncio.Future[bool]] = []

    def append(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Add frames to the stream. Readers in this process see them immediately."""
        if self.stream.end:
            raise ValueError(f"The stream {self.stream.id} has ended; no more events can be appended.")
        self.stream.append(frames)
        self._flusher.schedule(self, urgent=self.stream.received_bytes - self._written_bytes > FLUSH_NOW_BYTES)

    def describe(self, *, status: int, content_type: str, retry_after_seconds: int | None = None) -> None:
        """Set what was not known at the start. A reader that has the first event appended after this sees it too."""
        self.stream.info = msgspec.structs.replace(
            self.stream.info, status=status, content_type=content_type, retry_after_seconds=retry_after_seconds
        )
        self._record_due = True
        self._flusher.schedule(self)

    async def wait_until_flushed(self, *, urgent: bool = True) -> bool:
        """Wait until everything appended so far is in the log. False if it is not: Redis is unavailable or full."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._flusher.schedule(self, urgent=urgent)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                return await waiter
        except TimeoutError:
            return False

    def end(self, end: StreamEnd) -> None:
        """End the stream. Readers in this process see it immediately. The first end counts."""
        if self.stream.end is None:
            self.stream.finish(end)
            self._flusher.schedule(self)

    async def finish(self, end: StreamEnd) -> None:
        """End the stream, and wait until the log has the end or cannot have it."""
        self.end(end)
        if not self._end_written:
            await self.wait_until_flushed(urgent=False)

    # Called by the flusher

    def pending_writes(self) -> list[PendingWrite]:
        """Return what the log lacks, in order: the record with the first entry, the end with the last."""
        self._in_flight, self._waiting = self._waiting, []
        stream, after = self.stream, max(self._written, self.stream.first - 1)
        self._written_bytes = stream.received_bytes
        end = None if self._end_written else stream.end
        entries = list(split_into_entries(after, stream.events[after - stream.first + 1 :], end))
        writes = [self._pending_write(entry, first=index == 0) for index, entry in enumerate(entries)]
        if not writes and self._record_due:
            writes = [self._pending_write(None, first=True)]
        self._record_due = False
        return writes

    def on_result(self, write: PendingWrite, result: bytes) -> None:
        """Handle the reply of `append.lua` to one write."""
        if result == b"gone":
            self._on_log_lost()
        elif result != b"ok":
            self._error = result.decode(errors="replace")[:200]
        elif write.entry:
            self._written = write.entry.last
            self._end_written = write.entry.end is not None

    def on_flushed(self, *, unavailable: bool) -> bool:
        """Resolve the waiters after a flush. Returns whether there is more to write that can succeed."""
        rejection, self._error = self._error, ""
        if unavailable or rejection:
            self._record_due = True
            self._resolve_waiters(False)
        elif self._log_was_lost:
            self._log_was_lost = False
            self._waiting += self._in_flight
        else:
            self._resolve_waiters(True)
        if rejection:
            log.error("stream_log_write_rejected", stream=self.stream.id, error=rejection)
        if self._end_written or (rejection and self.stream.end):
            self.drop()
        return self._has_unwritten() and not rejection

    def rewrite_if_lost(self) -> None:
        """Write the record again, which also detects a lost log: the script then answers `gone`."""
        self._record_due = True
        self._flusher.schedule(self)

    def release_events(self) -> None:
        """Free the memory of all events. Readers of events that the log lacks get `CursorExpired`."""
        self.stream.release_events()

    def drop(self) -> None:
        """Leave the registry: from now on the stream is read from the log, or not at all. Idempotent."""
        self._on_dropped(self.stream.id)

    def _pending_write(self, entry: LogEntry | None, *, first: bool) -> PendingWrite:
        stream = self.stream
        ended = entry is not None and entry.end is not None
        record = b""
        if ended or (first and self._record_due):
            # Readers trust an end in the record, so the record must not have it before the log has the last event.
            record = encode(stream.record if ended else StreamRecord(stream.info, stream.process, 0, None))
        packed = encode(entry) if entry else b""
        seconds = self._ttl_seconds if ended else max(self._ttl_seconds, MIN_RUNNING_TTL_SECONDS)
        arguments = AppendArguments(
            entry=packed,
            record=record,
            entry_id=entry.id if entry else "",
            oldest_id=f"{stream.first}-0",
            ttl_seconds=seconds,
            must_exist=int(self._written > 0),
        )
        return PendingWrite(self, self._key, arguments, entry, len(packed) + len(record))

    def _on_log_lost(self) -> None:
        """Redis lost the log: everything still held in memory is written again."""
        self._written, self._record_due, self._end_written, self._log_was_lost = 0, True, False, True

    def _has_unwritten(self) -> bool:
        lacks_end = self.stream.end is not None and not self._end_written
        return self._record_due or lacks_end or self._written < self.stream.last

    def _resolve_waiters(self, is_written: bool) -> None:
        waiting, self._in_flight = self._in_flight, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(is_written)


class LogFlusher:
    """Group commit of the event logs: one per process and Redis. Its task exists only while there is work."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        #: Writers with unwritten data, in order of arrival, each once.
        self._due: dict[EventLogWriter, None] = {}
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        #: Redis cannot be reached: readers in other processes receive nothing new.
        self.unavailable = False

    def schedule(self, writer: EventLogWriter, *, urgent: bool = False) -> None:
        """Flush the writer after `FLUSH_INTERVAL_SECONDS`, or immediately if urgent."""
        self._due[writer] = None
        if urgent:
            self._urgent.set()
        if self._task is None and not self._is_stopped:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-flusher")

    async def stop(self) -> None:
        """Stop writing, even with data unwritten."""
        self._is_stopped = True
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        try:
            while self._due:
                await self._pause()
                await self._flush()
        finally:
            self._task = None

    async def _pause(self) -> None:
        if self.unavailable:
            await asyncio.sleep(OUTAGE_RETRY_SECONDS)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_INTERVAL_SECONDS):
                await self._urgent.wait()
        self._urgent.clear()

    async def _flush(self) -> None:
        writers, self._due = list(self._due), {}
        try:
            for batch in _batches([write for writer in writers for write in writer.pending_writes()]):
                await self._send(batch)
        except RedisUnavailable as error:
            self._log_unavailable(error)
        else:
            self._log_recovered()
        self._due.update(dict.fromkeys(writer for writer in writers if writer.on_flushed(unavailable=self.unavailable)))
        if self.unavailable:
            self._release_ended()

    async def _send(self, batch: Sequence[PendingWrite]) -> None:
        keys = [write.key for write in batch]
        arguments = [argument for write in batch for argument in astuple(write.arguments)]
        results = await APPEND_SCRIPT.run(self._server, keys, arguments)
        for write, result in zip(batch, results, strict=True):
            write.writer.on_result(write, result)

    def _log_unavailable(self, error: RedisUnavailable) -> None:
        if not self.unavailable:
            self.unavailable = True
            log.error(
                "stream_log_unavailable",
                error=str(error),
                hint="Readers in this process are not affected; readers in other processes wait.",
            )

    def _log_recovered(self) -> None:
        if self.unavailable:
            self.unavailable = False
            log.info("stream_log_recovered", streams=len(self._due))

    def _release_ended(self) -> None:
        """Free the events of streams that ended too long ago, and of the oldest beyond the size bound.

        Their ends are still written once Redis is back: a reader that finds the beginning there must not wait forever.
        """
        ended = sorted((writer for writer in self._due if writer.stream.ended_at is not None), key=_ended_at)
        for writer in ended[: max(len(ended) - MAX_PENDING_ENDS, 0)]:
            del self._due[writer]
            writer.drop()
        held = sum(writer.stream.held_bytes for writer in ended)
        for writer in ended:
            if held > OUTAGE_RETENTION_BYTES or time.monotonic() - _ended_at(writer) > OUTAGE_RETENTION_SECONDS:
                held -= writer.stream.held_bytes
                writer.release_events()


def _ended_at(writer: EventLogWriter) -> float:
    return writer.stream.ended_at or 0.0


def _batches(writes: Sequence[PendingWrite]) -> Iterator[Sequence[PendingWrite]]:
    """Cut the writes into round trips within `MAX_PIPELINE_BYTES` and `MAX_PIPELINE_ENTRIES`."""
    begin = size = 0
    for index, write in enumerate(writes):
        if index > begin and (size + write.size > MAX_PIPELINE_BYTES or index - begin == MAX_PIPELINE_ENTRIES):
            yield writes[begin:index]
            begin, size = index, 0
        size += write.size
    if begin < len(writes):
        yield writes[begin:]

"""The writing side of a stream: what is appended is in memory at once, and in the log a moment later."""

import asyncio
from collections.abc import Iterable

import msgspec
import redis.asyncio
import structlog

from core.redis import REPLY_TIMEOUT_SECONDS
from streams.entries import LogEntry, StreamEnd, StreamInfo, StreamRecord, encode, log_key, split_into_entries
from streams.flusher import PendingWrite
from streams.here import process_streams
from streams.live import LocalStream
from streams.process import ProcessHeartbeat

log = structlog.get_logger(__name__)

#: So much of one stream does not wait for company on its way to the log.
FLUSH_NOW_BYTES = 64 * 1024
#: A stream that runs is kept at least so long after its last event, however short its log is kept in the end.
MIN_RUNNING_TTL_SECONDS = 3600
#: Who waits for the log waits no longer than this.
FLUSH_TIMEOUT_SECONDS = 2 * REPLY_TIMEOUT_SECONDS


class EventLogWriter:
    """Writes one stream. Nothing here waits for Redis but `flushed` and `finish`, and they not for long."""

    def __init__(
        self,
        server: redis.asyncio.Redis,
        about: StreamInfo,
        *,
        process: ProcessHeartbeat,
        ttl_seconds: int,
        max_bytes: int,
        detached: bool = False,
    ) -> None:
        self.stream = LocalStream(about, process=process.id, max_bytes=max_bytes, detached=detached)
        self._streams = process_streams(server)
        self._streams.writers[about.id] = self
        self._ttl_seconds = ttl_seconds
        self._key = log_key(about.id)
        #: The last event in the log; 0 also when the log was lost and is to be written again.
        self._written = 0
        self._written_bytes = 0
        self._record_due = True
        self._end_written = False
        self._log_was_lost = False
        self._error = ""
        self._waiting: list[asyncio.Future[bool]] = []
        self._in_flight: list[asyncio.Future[bool]] = []
        self._streams.flusher.schedule(self)

    def append(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Add frames to the stream. Readers here see them at once."""
        if self.stream.end:
            raise ValueError(f"The stream {self.stream.id} has ended; no more events can be appended.")
        self.stream.append(frames)
        self._streams.flusher.schedule(self, urgent=self.stream.received_bytes - self._written_bytes > FLUSH_NOW_BYTES)

    def describe(self, *, status: int, content_type: str, retry_after_seconds: int | None = None) -> None:
        """Say what was not known when it began. Whoever has seen the first event, sees this too."""
        self.stream.about = msgspec.structs.replace(
            self.stream.about, status=status, content_type=content_type, retry_after_seconds=retry_after_seconds
        )
        self._record_due = True
        self._streams.flusher.schedule(self)

    async def flushed(self, *, urgent: bool = True) -> bool:
        """Wait until what was appended up to now is in the log. False when it is not: Redis is away, or full."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._streams.flusher.schedule(self, urgent=urgent)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                return await waiter
        except TimeoutError:
            return False

    def end(self, end: StreamEnd) -> None:
        """End the stream. Readers here see it at once. The first end counts."""
        if self.stream.end is None:
            self.stream.finish(end)
            self._streams.flusher.schedule(self)

    async def finish(self, end: StreamEnd) -> None:
        """End the stream, and wait until the log has it, or cannot have it."""
        self.end(end)
        if not self._end_written:
            await self.flushed(urgent=False)

    # What the flusher asks for

    def pending_writes(self) -> list[PendingWrite]:
        """Return what the log lacks: the record first, the end last."""
        self._in_flight, self._waiting = self._waiting, []
        stream, after = self.stream, max(self._written, self.stream.first - 1)
        self._written_bytes = stream.received_bytes
        end = None if self._end_written else stream.end
        entries = list(split_into_entries(after, stream.events[after - stream.first + 1 :], end))
        items = [self._item(entry, first=index == 0) for index, entry in enumerate(entries)]
        if not items and self._record_due:
            items = [self._item(None, first=True)]
        self._record_due = False
        return items

    def _item(self, entry: LogEntry | None, *, first: bool) -> PendingWrite:
        stream = self.stream
        ended = entry is not None and entry.end is not None
        record = b""
        if ended or (first and self._record_due):
            # Readers go by an end in the record, so it must not be there before the last event is.
            record = encode(stream.record if ended else StreamRecord(stream.about, stream.process, 0, None))
        packed = encode(entry) if entry else b""
        seconds = self._ttl_seconds if ended else max(self._ttl_seconds, MIN_RUNNING_TTL_SECONDS)
        words = f"{entry.id if entry else '-'} {stream.first}-0 {seconds} {int(self._written > 0)}"
        return PendingWrite(self, self._key, (packed, record, words), entry, len(packed) + len(record))

    def on_result(self, item: PendingWrite, answer: bytes) -> None:
        """Note what became of one item."""
        if answer == b"gone":
            self._on_log_lost()
        elif answer != b"ok":
            self._error = answer.decode(errors="replace")[:200]
        elif item.entry:
            self._written = item.entry.last
            self._end_written = item.entry.end is not None

    def on_flushed(self, *, unavailable: bool) -> bool:
        """Tell who waits how it went. True when there is more to write, and hope that it can be."""
        refusal, self._error = self._error, ""
        if unavailable or refusal:
            self._record_due = True
            self._resolve_waiters(False)
        elif self._log_was_lost:
            self._log_was_lost = False
            self._waiting += self._in_flight
        else:
            self._resolve_waiters(True)
        if refusal:
            log.error("stream_log_write_rejected", stream=self.stream.id, error=refusal)
        if self._end_written or (refusal and self.stream.end):
            self.drop()
        return self._has_unwritten() and not refusal

    def rewrite_if_lost(self) -> None:
        """See whether the log is still there, and write it again if it is not: a record is only put beside its log."""
        self._record_due = True
        self._streams.flusher.schedule(self)

    def release_events(self) -> None:
        """Hold no event any more: readers of what the log lacks are told that it is no longer kept."""
        self.stream.release_events()

    def drop(self) -> None:
        """From now on who reads it finds it in the log, or not at all."""
        self._streams.writers.pop(self.stream.id, None)

    def _on_log_lost(self) -> None:
        """It has been lost: all that is still held is written again."""
        self._written, self._record_due, self._end_written, self._log_was_lost = 0, True, False, True

    def _has_unwritten(self) -> bool:
        lacks_end = self.stream.end is not None and not self._end_written
        return self._record_due or lacks_end or self._written < self.stream.last

    def _resolve_waiters(self, is_written: bool) -> None:
        waiting, self._in_flight = self._in_flight, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(is_written)

"""The writing side of a stream: what is appended is in memory at once, and in the log a moment later."""

import asyncio
from collections.abc import Iterable

import msgspec
import redis.asyncio
import structlog

from core.redis import ANSWER_SECONDS
from streams.entries import About, End, Entry, Record, encode, log_key, split
from streams.flusher import Item
from streams.here import here
from streams.live import LiveStream
from streams.process import ProcessMark

log = structlog.get_logger(__name__)

#: So much of one stream does not wait for company on its way to the log.
HURRY_BYTES = 64 * 1024
#: A stream that runs is kept at least so long after its last event, however short its log is kept in the end.
RUNNING_SECONDS = 3600
#: Who waits for the log waits no longer than this.
FLUSH_SECONDS = 2 * ANSWER_SECONDS


class Writer:
    """Writes one stream. Nothing here waits for Redis but `flushed` and `finish`, and they not for long."""

    def __init__(
        self,
        server: redis.asyncio.Redis,
        about: About,
        *,
        process: ProcessMark,
        ttl_seconds: int,
        max_bytes: int,
        detached: bool = False,
    ) -> None:
        self.stream = LiveStream(about, process=process.id, max_bytes=max_bytes, detached=detached)
        self._here = here(server)
        self._here.writers[about.id] = self
        self._ttl_seconds = ttl_seconds
        self._key = log_key(about.id)
        #: The last event in the log; 0 also when the log was lost and is to be written again.
        self._written = 0
        self._written_bytes = 0
        self._record_due = True
        self._end_written = False
        self._is_lost = False
        self._refusal = ""
        self._waiting: list[asyncio.Future[bool]] = []
        self._under_way: list[asyncio.Future[bool]] = []
        self._here.flusher.mark(self)

    def append(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Add frames to the stream. Readers here see them at once."""
        if self.stream.end:
            raise ValueError(f"The stream {self.stream.id} has ended; nothing can follow.")
        self.stream.append(frames)
        self._here.flusher.mark(self, hurry=self.stream.taken_bytes - self._written_bytes > HURRY_BYTES)

    def describe(self, *, status: int, content_type: str, retry_after_seconds: int | None = None) -> None:
        """Say what was not known when it began. Whoever has seen the first event, sees this too."""
        self.stream.about = msgspec.structs.replace(
            self.stream.about, status=status, content_type=content_type, retry_after_seconds=retry_after_seconds
        )
        self._record_due = True
        self._here.flusher.mark(self)

    async def flushed(self, *, hurry: bool = True) -> bool:
        """Wait until what was appended up to now is in the log. False when it is not: Redis is away, or full."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._here.flusher.mark(self, hurry=hurry)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                return await waiter
        except TimeoutError:
            return False

    def end(self, end: End) -> None:
        """End the stream. Readers here see it at once. The first end counts."""
        if self.stream.end is None:
            self.stream.finish(end)
            self._here.flusher.mark(self)

    async def finish(self, end: End) -> None:
        """End the stream, and wait until the log has it, or cannot have it."""
        self.end(end)
        if not self._end_written:
            await self.flushed(hurry=False)

    # What the flusher asks for

    def plan(self) -> list[Item]:
        """Return what the log lacks: the record first, the end last."""
        self._under_way, self._waiting = self._waiting, []
        stream, after = self.stream, max(self._written, self.stream.first - 1)
        self._written_bytes = stream.taken_bytes
        end = None if self._end_written else stream.end
        entries = list(split(after, stream.events[after - stream.first + 1 :], end))
        items = [self._item(entry, first=index == 0) for index, entry in enumerate(entries)]
        if not items and self._record_due:
            items = [self._item(None, first=True)]
        self._record_due = False
        return items

    def _item(self, entry: Entry | None, *, first: bool) -> Item:
        stream = self.stream
        ended = entry is not None and entry.end is not None
        record = b""
        if ended or (first and self._record_due):
            # Readers go by an end in the record, so it must not be there before the last event is.
            record = encode(stream.record if ended else Record(stream.about, stream.process, 0, None))
        packed = encode(entry) if entry else b""
        seconds = self._ttl_seconds if ended else max(self._ttl_seconds, RUNNING_SECONDS)
        words = f"{entry.id if entry else '-'} {stream.first}-0 {seconds} {int(self._written > 0)}"
        return Item(self, self._key, (packed, record, words), entry, len(packed) + len(record))

    def took(self, item: Item, answer: bytes) -> None:
        """Note what became of one item."""
        if answer == b"gone":
            self._forget_log()
        elif answer != b"ok":
            self._refusal = answer.decode(errors="replace")[:200]
        elif item.entry:
            self._written = item.entry.last
            self._end_written = item.entry.end is not None

    def conclude(self, *, away: bool) -> bool:
        """Tell who waits how it went. True when there is more to write, and hope that it can be."""
        refusal, self._refusal = self._refusal, ""
        if away or refusal:
            self._record_due = True
            self._tell(False)
        elif self._is_lost:
            self._is_lost = False
            self._waiting += self._under_way
        else:
            self._tell(True)
        if refusal:
            log.error("stream_log_refused", stream=self.stream.id, error=refusal)
        if self._end_written or (refusal and self.stream.end):
            self.drop()
        return self._lacks_something() and not refusal

    def verify(self) -> None:
        """See whether the log is still there, and write it again if it is not: a record is only put beside its log."""
        self._record_due = True
        self._here.flusher.mark(self)

    def let_go(self) -> None:
        """Hold no event any more: readers of what the log lacks are told that it is no longer kept."""
        self.stream.let_go()

    def drop(self) -> None:
        """From now on who reads it finds it in the log, or not at all."""
        self._here.writers.pop(self.stream.id, None)

    def _forget_log(self) -> None:
        """It has been lost: all that is still held is written again."""
        self._written, self._record_due, self._end_written, self._is_lost = 0, True, False, True

    def _lacks_something(self) -> bool:
        lacks_end = self.stream.end is not None and not self._end_written
        return self._record_due or lacks_end or self._written < self.stream.last

    def _tell(self, is_written: bool) -> None:
        waiting, self._under_way = self._under_way, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(is_written)

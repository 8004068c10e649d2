"""Writes what a process's streams have appended to their logs: every few milliseconds, all of them in one trip."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import redis.asyncio
import structlog

from core.redis import LuaScript, RedisUnavailable
from streams.background import cancel_and_wait
from streams.entries import LogEntry
from streams.live import LocalStream

log = structlog.get_logger(__name__)

APPEND_SCRIPT = LuaScript((Path(__file__).parent / "append.lua").read_text())
#: How long events wait for company. Nobody in this process waits for them; only readers in others do.
FLUSH_INTERVAL_SECONDS = 0.025
#: Redis does nothing else during a trip, and others wait for the line, so trips are short.
MAX_PIPELINE_BYTES, MAX_PIPELINE_ENTRIES = 256 * 1024, 256
#: Between attempts to reach a Redis that is away.
OUTAGE_RETRY_SECONDS = 0.5
#: What is kept of streams that ended while Redis is away.
OUTAGE_RETENTION_SECONDS, OUTAGE_RETENTION_BYTES = 60.0, 64 * 1024 * 1024
#: Of so many it is kept at least that they ended.
MAX_PENDING_ENDS = 20_000


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """One entry, or a record alone, on its way to the log: a key and arguments of `append.lua`."""

    source: "FlushSource"
    key: str
    arguments: tuple[bytes, bytes, str]
    entry: LogEntry | None
    size: int


class FlushSource(Protocol):
    """A stream that has something to write."""

    @property
    def stream(self) -> LocalStream: ...
    def pending_writes(self) -> list[PendingWrite]:
        """Return what is to be written now."""

    def on_result(self, item: PendingWrite, answer: bytes) -> None:
        """Note what the log said to one item."""

    def on_flushed(self, *, unavailable: bool) -> bool:
        """Note that all that was planned has been tried. True when there is more to write."""

    def rewrite_if_lost(self) -> None:
        """See whether the log is still there, and write it again if it is not."""

    def release_events(self) -> None:
        """Hold its events no longer, only its end: it has ended, and Redis is away for too long."""

    def drop(self) -> None:
        """Give up."""


class LogFlusher:
    """One for each process and Redis. Its task is there only while something is to be written."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        #: In the order in which they came, each once.
        self._due: dict[FlushSource, None] = {}
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        #: Redis cannot be reached: readers in other processes see nothing new.
        self.unavailable = False

    def schedule(self, source: FlushSource, *, urgent: bool = False) -> None:
        """Write what the stream has, soon."""
        self._due[source] = None
        if urgent:
            self._urgent.set()
        if self._task is None and not self._is_stopped:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-flusher")

    async def stop(self) -> None:
        """Stop writing, whatever is left."""
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
        sources, self._due = list(self._due), {}
        try:
            for trip in _batches([item for source in sources for item in source.pending_writes()]):
                await self._send(trip)
        except RedisUnavailable as error:
            self._log_unavailable(error)
        else:
            self._log_recovered()
        self._due.update(dict.fromkeys(source for source in sources if source.on_flushed(unavailable=self.unavailable)))
        if self.unavailable:
            self._release_ended()

    async def _send(self, trip: Sequence[PendingWrite]) -> None:
        keys = [item.key for item in trip]
        arguments = [argument for item in trip for argument in item.arguments]
        answers = await APPEND_SCRIPT.run(self._server, keys, arguments)
        for item, answer in zip(trip, answers, strict=True):
            item.source.on_result(item, answer)

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
        """Let go of what ended long ago, and of the oldest of it beyond a bound.

        That it ended is written all the same once Redis is back: who finds there how it began must not wait for ever.
        """
        ended = sorted((source for source in self._due if source.stream.ended_at is not None), key=_ended_at)
        for source in ended[: max(len(ended) - MAX_PENDING_ENDS, 0)]:
            del self._due[source]
            source.drop()
        held = sum(source.stream.held_bytes for source in ended)
        for source in ended:
            if held > OUTAGE_RETENTION_BYTES or time.monotonic() - _ended_at(source) > OUTAGE_RETENTION_SECONDS:
                held -= source.stream.held_bytes
                source.release_events()


def _ended_at(source: FlushSource) -> float:
    return source.stream.ended_at or 0.0


def _batches(items: Sequence[PendingWrite]) -> Iterator[Sequence[PendingWrite]]:
    begin = size = 0
    for index, item in enumerate(items):
        if index > begin and (size + item.size > MAX_PIPELINE_BYTES or index - begin == MAX_PIPELINE_ENTRIES):
            yield items[begin:index]
            begin, size = index, 0
        size += item.size
    if begin < len(items):
        yield items[begin:]

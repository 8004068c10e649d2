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

from core.redis import RedisAway, Script
from streams.background import stop_task
from streams.entries import Entry
from streams.live import LiveStream

log = structlog.get_logger(__name__)

APPEND = Script((Path(__file__).parent / "append.lua").read_text())
#: How long events wait for company. Nobody in this process waits for them; only readers in others do.
PAUSE_SECONDS = 0.025
#: Redis does nothing else during a trip, and others wait for the line, so trips are short.
TRIP_BYTES, TRIP_ENTRIES = 256 * 1024, 256
#: Between attempts to reach a Redis that is away.
AWAY_SECONDS = 0.5
#: What is kept of streams that ended while Redis is away.
KEPT_SECONDS, KEPT_BYTES = 60.0, 64 * 1024 * 1024
#: Of so many it is kept at least that they ended.
MOST_ENDS = 20_000


@dataclass(frozen=True, slots=True)
class Item:
    """One entry, or a record alone, on its way to the log: a key and arguments of `append.lua`."""

    source: "Source"
    key: str
    arguments: tuple[bytes, bytes, str]
    entry: Entry | None
    size: int


class Source(Protocol):
    """A stream that has something to write."""

    @property
    def stream(self) -> LiveStream: ...
    def plan(self) -> list[Item]:
        """Return what is to be written now."""

    def took(self, item: Item, answer: bytes) -> None:
        """Note what the log said to one item."""

    def conclude(self, *, away: bool) -> bool:
        """Note that all that was planned has been tried. True when there is more to write."""

    def verify(self) -> None:
        """See whether the log is still there, and write it again if it is not."""

    def let_go(self) -> None:
        """Hold its events no longer, only its end: it has ended, and Redis is away for too long."""

    def drop(self) -> None:
        """Give up."""


class Flusher:
    """One for each process and Redis. Its task is there only while something is to be written."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        #: In the order in which they came, each once.
        self._due: dict[Source, None] = {}
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        #: Redis cannot be reached: readers in other processes see nothing new.
        self.away = False

    def mark(self, source: Source, *, hurry: bool = False) -> None:
        """Write what the stream has, soon."""
        self._due[source] = None
        if hurry:
            self._hurry.set()
        if self._task is None and not self._is_stopped:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-flusher")

    async def stop(self) -> None:
        """Stop writing, whatever is left."""
        self._is_stopped = True
        await stop_task(self._task)

    async def _run(self) -> None:
        try:
            while self._due:
                await self._pause()
                await self._flush()
        finally:
            self._task = None

    async def _pause(self) -> None:
        if self.away:
            await asyncio.sleep(AWAY_SECONDS)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._hurry.wait()
        self._hurry.clear()

    async def _flush(self) -> None:
        sources, self._due = list(self._due), {}
        try:
            for trip in _trips([item for source in sources for item in source.plan()]):
                await self._send(trip)
        except RedisAway as error:
            self._note_away(error)
        else:
            self._note_back()
        self._due.update(dict.fromkeys(source for source in sources if source.conclude(away=self.away)))
        if self.away:
            self._let_go()

    async def _send(self, trip: Sequence[Item]) -> None:
        keys = [item.key for item in trip]
        arguments = [argument for item in trip for argument in item.arguments]
        answers = await APPEND.run(self._server, keys, arguments)
        for item, answer in zip(trip, answers, strict=True):
            item.source.took(item, answer)

    def _note_away(self, error: RedisAway) -> None:
        if not self.away:
            self.away = True
            log.error("stream_log_away", error=str(error), hint="Readers here go on; those in other processes cannot.")

    def _note_back(self) -> None:
        if self.away:
            self.away = False
            log.info("stream_log_back", streams=len(self._due))

    def _let_go(self) -> None:
        """Let go of what ended long ago, and of the oldest of it beyond a bound.

        That it ended is written all the same once Redis is back: who finds there how it began must not wait for ever.
        """
        ended = sorted((source for source in self._due if source.stream.ended_at is not None), key=_ended_at)
        for source in ended[: max(len(ended) - MOST_ENDS, 0)]:
            del self._due[source]
            source.drop()
        held = sum(source.stream.held_bytes for source in ended)
        for source in ended:
            if held > KEPT_BYTES or time.monotonic() - _ended_at(source) > KEPT_SECONDS:
                held -= source.stream.held_bytes
                source.let_go()


def _ended_at(source: Source) -> float:
    return source.stream.ended_at or 0.0


def _trips(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    begin = size = 0
    for index, item in enumerate(items):
        if index > begin and (size + item.size > TRIP_BYTES or index - begin == TRIP_ENTRIES):
            yield items[begin:index]
            begin, size = index, 0
        size += item.size
    if begin < len(items):
        yield items[begin:]

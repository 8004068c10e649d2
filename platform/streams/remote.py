"""A stream that another process serves, or served: from the log what was missed, and then as it is told."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import redis.asyncio

from streams.entries import (
    BEAT_SECONDS,
    EXPIRY_SECONDS,
    About,
    End,
    Entry,
    Event,
    Record,
    decode_entry,
    decode_record,
    log_key,
    process_key,
    record_key,
)
from streams.errors import CursorAhead, CursorExpired, Orphaned
from streams.here import Here, here
from streams.tails import Tail

#: So many entries of a log at a time: two megabytes, unless single events are longer.
READ_ENTRIES = 32
#: A client may have seen here what its log gets a moment later: so long, it is not taken for ahead.
AHEAD_SECONDS = 1.0
PEEK_SECONDS = 0.05


class Remote:
    """One reader's way into it."""

    def __init__(self, server: redis.asyncio.Redis, record: Record) -> None:
        self._here: Here = here(server)
        self._record = record
        self._tail: Tail | None = None
        #: What the tail had told when the log was found to hold no more.
        self._seen_version = -1
        self._ready: list[Event] = []
        #: The record was read after the first event, so that it knows the status if ever.
        self._is_described = False
        self._end: End | None = None

    @classmethod
    async def open(cls, server: redis.asyncio.Redis, record: Record, after: int) -> Self:
        """Return a reader that stands after an event. Raises `CursorError`, `Orphaned` and `RedisAway`."""
        remote = cls(server, record)
        try:
            if record.end is None:
                remote._tail = await remote._here.tails.join(record.about.id, record.process)
            await remote._reach(after)
            await remote._read(after)
        except BaseException:
            await remote.leave()
            raise
        return remote

    @property
    def about(self) -> About:
        return self._record.about

    async def next(self, after: int, idle_seconds: float | None) -> list[Event] | End:
        """Return the events after this one, or the end; none when nothing comes for so long."""
        while True:
            if self._ready:
                await self._learn_status()
                ready, self._ready = self._ready, []
                return ready
            if self._end:
                await self._learn_status()
                return self._end
            if self._tail is None:
                await self._read(after)
            elif found := self._told(self._tail, after):
                await self._learn_status()
                return found
            elif not self._tail.holds_after(after) and self._seen_version != self._tail.version:
                await self._look(self._tail, after)
            else:
                _check(self._tail)
                if not await self._tail.wait(idle_seconds):
                    return []

    async def _learn_status(self) -> None:
        """Read the record again, once, if it did not say yet what came with the first event."""
        if self._record.about.status or self._is_described:
            return
        packed = await self._here.ask("GET", record_key(self._record.about.id))
        self._is_described = True
        if packed is not None:
            self._record = decode_record(packed)

    async def leave(self) -> None:
        """Follow it no longer."""
        if tail := self._tail:
            self._tail = None
            await self._here.tails.leave(tail)

    def _told(self, tail: Tail, after: int) -> list[Event] | End | None:
        """Return what has been told in this process, without a look into the log."""
        if not tail.holds_after(after):
            return None
        return tail.after(after) or tail.end

    async def _look(self, tail: Tail, after: int) -> None:
        version = tail.version
        await self._read(after)
        if not self._ready and not self._end:
            self._seen_version = version

    async def _read(self, after: int) -> None:
        """Read on in the log."""
        key = log_key(self._record.about.id)
        found = await self._here.ask("XRANGE", key, f"({after}-0", "+", "COUNT", READ_ENTRIES)
        self._ready, self._end = join([decode_entry(fields[b"d"]) for _, fields in found], after)
        if not self._ready and not self._end and self._record.end:
            if after < self._record.last:
                raise CursorExpired(f"Event {after + 1} of {self._record.about.id} is no longer kept.")
            self._end = self._record.end

    async def _reach(self, after: int) -> None:
        """Wait until the log has come to a cursor, which may be ahead of it only for a moment."""
        begun_at = time.monotonic()
        while after and after > (last := await self._last_in_log()):
            if self._tail is None or (time.monotonic() - begun_at > AHEAD_SECONDS and await self._is_beating()):
                raise CursorAhead(f"There is no event {after} in {self._record.about.id}; the last is {last}.")
            _check(self._tail)
            await asyncio.sleep(PEEK_SECONDS)

    async def _last_in_log(self) -> int:
        if self._record.end:
            return self._record.last
        found = await self._here.ask("XREVRANGE", log_key(self._record.about.id), "+", "-", "COUNT", 1)
        return int(found[0][0].partition(b"-")[0]) if found else 0

    async def _is_beating(self) -> bool:
        """Say whether the process that serves the stream has made its mark just now, so that it is not dead yet."""
        left: int = await self._here.ask("PTTL", process_key(self._record.process))
        return left > (EXPIRY_SECONDS - 2 * BEAT_SECONDS) * 1000


def join(entries: Sequence[Entry], after: int) -> tuple[list[Event], End | None]:
    """Return the events after one, as far as they have no gap, and the end if that is reached.

    Entries may overlap: one whose writing seemed to have failed is written again, with more in it. Raises
    `CursorExpired` where the next event is missing.
    """
    events: list[Event] = []
    seq = after
    for entry in entries:
        new = [event for event in entry.events if event.seq > seq]
        expected_last = seq + len(new)
        if max(entry.last, seq) != expected_last:
            if events:
                break
            raise CursorExpired(f"Event {after + 1} is no longer kept; the log goes up to {entry.last}.")
        events += new
        seq = expected_last
        if entry.end:
            return events, entry.end
    return events, None


def _check(tail: Tail) -> None:
    if tail.is_orphaned:
        raise Orphaned(f"The process that served {tail.stream_id} is gone. It left no end.")
    if tail.failure:
        raise tail.failure

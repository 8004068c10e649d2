"""A stream that another process serves, or served: from the log what was missed, and then as it is told."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import redis.asyncio

from streams.entries import (
    HEARTBEAT_SECONDS,
    HEARTBEAT_TTL_SECONDS,
    LogEntry,
    LoggedEvent,
    StreamEnd,
    StreamInfo,
    StreamRecord,
    decode_entry,
    decode_record,
    heartbeat_key,
    log_key,
    record_key,
)
from streams.errors import CursorAhead, CursorExpired, StreamOrphaned
from streams.here import ProcessStreams, process_streams
from streams.tails import StreamSubscription

#: So many entries of a log at a time: two megabytes, unless single events are longer.
MAX_READ_ENTRIES = 32
#: A client may have seen here what its log gets a moment later: so long, it is not taken for ahead.
CURSOR_AHEAD_GRACE_SECONDS = 1.0
POLL_SECONDS = 0.05


class RemoteSource:
    """One reader's way into it."""

    def __init__(self, server: redis.asyncio.Redis, record: StreamRecord) -> None:
        self._streams: ProcessStreams = process_streams(server)
        self._record = record
        self._subscription: StreamSubscription | None = None
        #: What the tail had told when the log was found to hold no more.
        self._seen_version = -1
        self._ready: list[LoggedEvent] = []
        #: The record was read after the first event, so that it knows the status if ever.
        self._is_record_refreshed = False
        self._end: StreamEnd | None = None

    @classmethod
    async def open(cls, server: redis.asyncio.Redis, record: StreamRecord, after: int) -> Self:
        """Return a reader that stands after an event. Raises `CursorError`, `StreamOrphaned` and `RedisAway`."""
        remote = cls(server, record)
        try:
            if record.end is None:
                remote._subscription = await remote._streams.tails.join(record.about.id, record.process)
            await remote._wait_for_cursor(after)
            await remote._read_log(after)
        except BaseException:
            await remote.leave()
            raise
        return remote

    @property
    def about(self) -> StreamInfo:
        return self._record.about

    async def next(self, after: int, idle_seconds: float | None) -> list[LoggedEvent] | StreamEnd:
        """Return the events after this one, or the end; none when nothing comes for so long."""
        while True:
            if self._ready:
                await self._refresh_record()
                ready, self._ready = self._ready, []
                return ready
            if self._end:
                await self._refresh_record()
                return self._end
            if self._subscription is None:
                await self._read_log(after)
            elif found := self._read_buffered(self._subscription, after):
                await self._refresh_record()
                return found
            elif not self._subscription.holds_after(after) and self._seen_version != self._subscription.version:
                await self._read_if_changed(self._subscription, after)
            else:
                _raise_if_dead(self._subscription)
                if not await self._subscription.wait(idle_seconds):
                    return []

    async def _refresh_record(self) -> None:
        """Read the record again, once, if it did not say yet what came with the first event."""
        if self._record.about.status or self._is_record_refreshed:
            return
        packed = await self._streams.ask("GET", record_key(self._record.about.id))
        self._is_record_refreshed = True
        if packed is not None:
            self._record = decode_record(packed)

    async def leave(self) -> None:
        """Follow it no longer."""
        if tail := self._subscription:
            self._subscription = None
            await self._streams.tails.leave(tail)

    def _read_buffered(self, tail: StreamSubscription, after: int) -> list[LoggedEvent] | StreamEnd | None:
        """Return what has been told in this process, without a look into the log."""
        if not tail.holds_after(after):
            return None
        return tail.after(after) or tail.end

    async def _read_if_changed(self, tail: StreamSubscription, after: int) -> None:
        version = tail.version
        await self._read_log(after)
        if not self._ready and not self._end:
            self._seen_version = version

    async def _read_log(self, after: int) -> None:
        """Read on in the log."""
        key = log_key(self._record.about.id)
        found = await self._streams.ask("XRANGE", key, f"({after}-0", "+", "COUNT", MAX_READ_ENTRIES)
        self._ready, self._end = merge_entries([decode_entry(fields[b"d"]) for _, fields in found], after)
        if not self._ready and not self._end and self._record.end:
            if after < self._record.last:
                raise CursorExpired(f"Event {after + 1} of {self._record.about.id} is no longer stored.")
            self._end = self._record.end

    async def _wait_for_cursor(self, after: int) -> None:
        """Wait until the log has come to a cursor, which may be ahead of it only for a moment."""
        begun_at = time.monotonic()
        while after and after > (last := await self._last_in_log()):
            if self._subscription is None or (
                time.monotonic() - begun_at > CURSOR_AHEAD_GRACE_SECONDS and await self._is_process_alive()
            ):
                raise CursorAhead(f"There is no event {after} in {self._record.about.id}; the last is {last}.")
            _raise_if_dead(self._subscription)
            await asyncio.sleep(POLL_SECONDS)

    async def _last_in_log(self) -> int:
        if self._record.end:
            return self._record.last
        found = await self._streams.ask("XREVRANGE", log_key(self._record.about.id), "+", "-", "COUNT", 1)
        return int(found[0][0].partition(b"-")[0]) if found else 0

    async def _is_process_alive(self) -> bool:
        """Say whether the process that serves the stream has made its mark just now, so that it is not dead yet."""
        left: int = await self._streams.ask("PTTL", heartbeat_key(self._record.process))
        return left > (HEARTBEAT_TTL_SECONDS - 2 * HEARTBEAT_SECONDS) * 1000


def merge_entries(entries: Sequence[LogEntry], after: int) -> tuple[list[LoggedEvent], StreamEnd | None]:
    """Return the events after one, as far as they have no gap, and the end if that is reached.

    Entries may overlap: one whose writing seemed to have failed is written again, with more in it. Raises
    `CursorExpired` where the next event is missing.
    """
    events: list[LoggedEvent] = []
    seq = after
    for entry in entries:
        new = [event for event in entry.events if event.seq > seq]
        expected_last = seq + len(new)
        if max(entry.last, seq) != expected_last:
            if events:
                break
            raise CursorExpired(f"Event {after + 1} is no longer stored; the log goes up to {entry.last}.")
        events += new
        seq = expected_last
        if entry.end:
            return events, entry.end
    return events, None


def _raise_if_dead(tail: StreamSubscription) -> None:
    if tail.is_orphaned:
        raise StreamOrphaned(
            f"The process that served {tail.stream_id} stopped unexpectedly; the stream is incomplete."
        )
    if tail.failure:
        raise tail.failure

"""Read path of streams: `follow` yields exactly the events after a cursor, in any process, up to the end.

A reader looks the stream up in `ProcessStreams`. If this process writes it, `LocalSource` reads the memory that the
writer task appends to (`streams.writer`). Otherwise `RemoteSource` reads what it missed from the log in Redis, and the
rest from the subscription. No event is skipped or repeated; what cannot be continued raises an error.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Self

from django.conf import settings

from core.redis import translate_redis_errors
from core.redis_keys import heartbeat_key
from streams.buffer import LocalStream
from streams.entries import (
    HEARTBEAT_SECONDS,
    HEARTBEAT_TTL_SECONDS,
    LoggedEvent,
    StreamEnd,
    StreamInfo,
    StreamRecord,
    decode_entry,
    decode_record,
    log_key,
    merge_entries,
    parse_stream_id,
    record_key,
    stream_age_seconds,
)
from streams.errors import CursorAhead, CursorExpired, StreamOrphaned, StreamUnknown
from streams.process import queue_cancel
from streams.registry import ProcessStreams
from streams.subscriptions import StreamSubscription

#: Interval of polling for a stream, or an event, that is about to appear.
POLL_SECONDS = 0.05
#: Entries per read of a log: two megabytes, unless single events are longer.
MAX_READ_ENTRIES = 32
#: A client may have received from the serving process what the log gets a moment later: during this time its cursor
#: does not count as ahead.
CURSOR_AHEAD_GRACE_SECONDS = 1.0


async def find_record(streams: ProcessStreams, stream_id: str, *, site: str) -> StreamRecord:
    """Return the record of a stream, whichever process serves it. Raises `StreamUnknown` and `RedisUnavailable`."""
    if stream := streams.find_stream(stream_id):
        record = stream.record
    else:
        parse_stream_id(stream_id)
        packed = await streams.query("GET", record_key(stream_id))
        if packed is None:
            raise StreamUnknown(f"There is no stream {stream_id}.")
        record = decode_record(packed)
    if record.info.site != site:
        raise StreamUnknown(f"There is no stream {stream_id}.")
    return record


async def request_cancel(streams: ProcessStreams, stream_id: str, *, site: str) -> bool:
    """Cancel a stream, whichever process serves it, in under a second. False if it has ended already.

    Raises `StreamUnknown` and `RedisUnavailable`.
    """
    record = await find_record(streams, stream_id, site=site)
    if stream := streams.find_stream(stream_id):
        stream.cancel("requested")
        return stream.end is None
    if record.end:
        return False
    with translate_redis_errors():
        pipeline = streams.server.pipeline(transaction=False)
        queue_cancel(pipeline, record.process, stream_id)
        await pipeline.execute()
    return True


def follow(
    streams: ProcessStreams,
    stream_id: str,
    after: int,
    *,
    site: str,
    idle_seconds: float | None = None,
    start_timeout_seconds: float = 0,
) -> "EventLogReader":
    """Read a stream from event `after` + 1 to its end: `async with follow(…) as reader: async for events in reader: …`.

    With `idle_seconds`, an empty list is yielded when nothing came for that long. A stream that does not exist yet is
    waited for `start_timeout_seconds`.
    """
    return EventLogReader(
        streams, stream_id, after, site=site, idle_seconds=idle_seconds, start_timeout_seconds=start_timeout_seconds
    )


class EventLogReader:
    """One reader's position in a stream. Must be closed: a stream without readers is canceled after the grace time."""

    def __init__(
        self,
        streams: ProcessStreams,
        stream_id: str,
        after: int,
        *,
        site: str,
        idle_seconds: float | None,
        start_timeout_seconds: float,
    ) -> None:
        self._streams = streams
        self._stream_id = stream_id
        self._site = site
        self._idle_seconds = idle_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._source: LocalSource | RemoteSource | None = None
        #: Number of the last event that was yielded.
        self.position = after
        #: How the stream ended; set after the last event was yielded.
        self.end: StreamEnd | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[list[LoggedEvent]]:
        return self

    async def __anext__(self) -> list[LoggedEvent]:
        """Return the next events; an empty list when nothing came for `idle_seconds`.

        May be canceled and called again; no event is lost. Raises `StreamOrphaned`, `CursorExpired` and
        `RedisUnavailable`.
        """
        if self.end:
            raise StopAsyncIteration
        source = self._source or await self.open()
        try:
            result = await source.next(self.position, self._idle_seconds)
        except Exception:
            await self.aclose()
            raise
        if isinstance(result, StreamEnd):
            self.end = result
            await self.aclose()
            raise StopAsyncIteration
        if result:
            self.position = result[-1].seq
        return result

    @property
    def info(self) -> StreamInfo:
        """Owner and format of the stream. What its start did not know, the status, is known with the first event."""
        assert self._source is not None, "Open it first."
        return self._source.info

    async def open(self) -> "LocalSource | RemoteSource":
        """Find the stream and the position in it, so that errors are known before a response is started.

        Raises `StreamUnknown`, `CursorAhead`, `CursorExpired`, `StreamOrphaned` and `RedisUnavailable`.
        """
        record = await self._find_record()
        if stream := self._streams.find_stream(self._stream_id):
            self._source = LocalSource(stream, self.position)
        else:
            self._source = await RemoteSource.open(self._streams, record, self.position)
        return self._source

    async def aclose(self) -> None:
        """Stop reading. Idempotent."""
        if self._source:
            await self._source.close()

    async def _find_record(self) -> StreamRecord:
        begun_at = time.monotonic()
        while True:
            try:
                return await find_record(self._streams, self._stream_id, site=self._site)
            except StreamUnknown as error:
                is_old = stream_age_seconds(self._stream_id) > settings.STREAM_LOG_TTL_SECONDS
                if self.position and is_old:
                    raise CursorExpired(f"The stream {self._stream_id} is no longer stored.") from error
                # A client with a cursor has read the stream, so it existed: after a flush of Redis its process writes
                # it again within two heartbeats.
                timeout = max(self._start_timeout_seconds, 2 * HEARTBEAT_SECONDS if self.position else 0)
                if time.monotonic() - begun_at >= timeout:
                    raise
            await asyncio.sleep(POLL_SECONDS)


class LocalSource:
    """Events of a stream that this process writes: from the memory that its writer task appends to."""

    def __init__(self, stream: LocalStream, after: int) -> None:
        # Raises if the position is not held, before the reader is counted.
        stream.after(after)
        stream.add_reader()
        self._stream = stream
        self._is_open = True

    @property
    def info(self) -> StreamInfo:
        return self._stream.info

    async def next(self, after: int, idle_seconds: float | None) -> list[LoggedEvent] | StreamEnd:
        """Return the events after `after`, or the end; an empty list after `idle_seconds`."""
        while not (events := self._stream.after(after)):
            if self._stream.end:
                return self._stream.end
            if not await self._stream.wait(idle_seconds):
                break
        return events

    async def close(self) -> None:
        """Stop counting as a reader. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._stream.remove_reader()


class RemoteSource:
    """Events of a stream that another process serves or served: from the log, then from the subscription."""

    def __init__(self, streams: ProcessStreams, record: StreamRecord) -> None:
        self._streams = streams
        self._record = record
        #: None if the stream has ended: the log is complete.
        self._subscription: StreamSubscription | None = None
        #: Version of the subscription when the log was last found to hold nothing more.
        self._seen_version = -1
        self._ready: list[LoggedEvent] = []
        #: The record was read after the first event, so it has the status if it ever will.
        self._is_record_refreshed = False
        self._end: StreamEnd | None = None

    @classmethod
    async def open(cls, streams: ProcessStreams, record: StreamRecord, after: int) -> Self:
        """Return a source positioned after `after`. Raises `CursorError`, `StreamOrphaned` and `RedisUnavailable`."""
        source = cls(streams, record)
        try:
            if record.end is None:
                source._subscription = await streams.subscriptions.subscribe(record.info.id, record.process)
            await source._wait_for_cursor(after)
            await source._read_log(after)
        except BaseException:
            await source.close()
            raise
        return source

    @property
    def info(self) -> StreamInfo:
        return self._record.info

    async def next(self, after: int, idle_seconds: float | None) -> list[LoggedEvent] | StreamEnd:
        """Return the events after `after`, or the end; an empty list after `idle_seconds`."""
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
            elif buffered := self._read_buffered(self._subscription, after):
                await self._refresh_record()
                return buffered
            elif not self._subscription.holds_after(after) and self._seen_version != self._subscription.version:
                await self._read_log_of_version(self._subscription, after)
            else:
                _raise_if_dead(self._subscription)
                if not await self._subscription.wait(idle_seconds):
                    return []

    async def close(self) -> None:
        """Release the subscription. Idempotent."""
        if subscription := self._subscription:
            self._subscription = None
            await self._streams.subscriptions.unsubscribe(subscription)

    async def _refresh_record(self) -> None:
        """Read the record again, once, if it lacks what became known with the first event."""
        if self._record.info.status or self._is_record_refreshed:
            return
        packed = await self._streams.query("GET", record_key(self._record.info.id))
        self._is_record_refreshed = True
        if packed is not None:
            self._record = decode_record(packed)

    def _read_buffered(self, subscription: StreamSubscription, after: int) -> list[LoggedEvent] | StreamEnd | None:
        """Return what the subscription holds after `after`, without reading the log."""
        if not subscription.holds_after(after):
            return None
        return subscription.after(after) or subscription.end

    async def _read_log_of_version(self, subscription: StreamSubscription, after: int) -> None:
        """Read the log, and if it holds nothing more, note that it need not be read again at this version."""
        version = subscription.version
        await self._read_log(after)
        if not self._ready and not self._end:
            self._seen_version = version

    async def _read_log(self, after: int) -> None:
        """Read the next events, or the end, from the log."""
        key = log_key(self._record.info.id)
        found = await self._streams.query("XRANGE", key, f"({after}-0", "+", "COUNT", MAX_READ_ENTRIES)
        self._ready, self._end = merge_entries([decode_entry(fields[b"d"]) for _, fields in found], after)
        if not self._ready and not self._end and self._record.end:
            if after < self._record.last:
                raise CursorExpired(f"Event {after + 1} of {self._record.info.id} is no longer stored.")
            self._end = self._record.end

    async def _wait_for_cursor(self, after: int) -> None:
        """Wait until the log has reached the cursor, which may be ahead of it for a moment only."""
        begun_at = time.monotonic()
        while after and after > (last := await self._last_in_log()):
            if self._subscription is None or (
                time.monotonic() - begun_at > CURSOR_AHEAD_GRACE_SECONDS and await self._is_process_alive()
            ):
                raise CursorAhead(f"There is no event {after} in {self._record.info.id}; the last is {last}.")
            _raise_if_dead(self._subscription)
            await asyncio.sleep(POLL_SECONDS)

    async def _last_in_log(self) -> int:
        if self._record.end:
            return self._record.last
        found = await self._streams.query("XREVRANGE", log_key(self._record.info.id), "+", "-", "COUNT", 1)
        return int(found[0][0].partition(b"-")[0]) if found else 0

    async def _is_process_alive(self) -> bool:
        """Return whether the serving process has renewed its heartbeat within two intervals, so it is alive."""
        left: int = await self._streams.query("PTTL", heartbeat_key(self._record.process))
        return left > (HEARTBEAT_TTL_SECONDS - 2 * HEARTBEAT_SECONDS) * 1000


def _raise_if_dead(subscription: StreamSubscription) -> None:
    if subscription.is_orphaned:
        raise StreamOrphaned(
            f"The process that served {subscription.stream_id} stopped unexpectedly; the stream is incomplete."
        )
    if subscription.failure:
        raise subscription.failure

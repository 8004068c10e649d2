"""The reading side of a stream, in any process: exactly what comes after a cursor, and on to the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Self

import redis.asyncio
from django.conf import settings

from core.redis import translate_redis_errors
from streams.canceling import queue_cancel
from streams.entries import (
    HEARTBEAT_SECONDS,
    LoggedEvent,
    StreamEnd,
    StreamInfo,
    StreamRecord,
    decode_record,
    record_key,
)
from streams.errors import CursorExpired, StreamUnknown
from streams.here import process_streams
from streams.ids import parse_stream_id, stream_age_seconds
from streams.live import LocalStream
from streams.remote import RemoteSource

#: How often one looks for a stream that is about to begin.
POLL_SECONDS = 0.05


async def find_record(server: redis.asyncio.Redis, stream_id: str, *, site: str) -> StreamRecord:
    """Return what is known of a stream, wherever it is served. Raises `StreamUnknown` and `RedisAway`."""
    if stream := process_streams(server).stream(stream_id):
        record = stream.record
    else:
        parse_stream_id(stream_id)
        packed = await process_streams(server).ask("GET", record_key(stream_id))
        if packed is None:
            raise StreamUnknown(f"There is no stream {stream_id}.")
        record = decode_record(packed)
    if record.about.site != site:
        raise StreamUnknown(f"There is no stream {stream_id}.")
    return record


async def request_cancel(server: redis.asyncio.Redis, stream_id: str, *, site: str) -> bool:
    """Cancel a stream wherever it is served; there it takes less than a second. False when it has ended already.

    Raises `StreamUnknown` and `RedisAway`.
    """
    record = await find_record(server, stream_id, site=site)
    if stream := process_streams(server).stream(stream_id):
        stream.cancel("requested")
        return stream.end is None
    if record.end:
        return False
    with translate_redis_errors():
        pipeline = server.pipeline(transaction=False)
        queue_cancel(pipeline, record.process, stream_id)
        await pipeline.execute()
    return True


def follow(
    server: redis.asyncio.Redis,
    stream_id: str,
    after: int,
    *,
    site: str,
    idle_seconds: float | None = None,
    start_timeout_seconds: float = 0,
) -> "EventLogReader":
    """Read a stream from any process: `async with follow(…) as following: async for events in following: …`.

    With `idle_seconds`, an empty list says that nothing came for so long. A stream that may be about to begin is
    waited for `patience_seconds`.
    """
    return EventLogReader(
        server, stream_id, after, site=site, idle_seconds=idle_seconds, start_timeout_seconds=start_timeout_seconds
    )


class EventLogReader:
    """One reader's place in a stream. Leave it: a stream that nobody reads is canceled after a while."""

    def __init__(
        self,
        server: redis.asyncio.Redis,
        stream_id: str,
        after: int,
        *,
        site: str,
        idle_seconds: float | None,
        start_timeout_seconds: float,
    ) -> None:
        self._server = server
        self._stream_id = stream_id
        self._site = site
        self._idle_seconds = idle_seconds
        self._start_timeout_seconds = start_timeout_seconds
        self._source: LocalSource | RemoteSource | None = None
        #: The last event that was handed out.
        self.position = after
        #: How the stream ended, once everything was handed out.
        self.end: StreamEnd | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[list[LoggedEvent]]:
        return self

    async def __anext__(self) -> list[LoggedEvent]:
        """Return what comes next; an empty list when nothing came for `idle_seconds`. May be canceled and asked again.

        Raises `Orphaned`, `CursorExpired` and `RedisAway`.
        """
        if self.end:
            raise StopAsyncIteration
        source = self._source or await self.open()
        try:
            found = await source.next(self.position, self._idle_seconds)
        except Exception:
            await self.aclose()
            raise
        if isinstance(found, StreamEnd):
            self.end = found
            await self.aclose()
            raise StopAsyncIteration
        if found:
            self.position = found[-1].seq
        return found

    @property
    def about(self) -> StreamInfo:
        """Whose stream it is. What was not known when it began, its status, is known with the first event."""
        assert self._source is not None, "Open it first."
        return self._source.about

    async def open(self) -> "LocalSource | RemoteSource":
        """Find the stream and the place in it, so that what is wrong is known before anything is sent.

        Raises `StreamUnknown`, `CursorAhead`, `CursorExpired`, `Orphaned` and `RedisAway`.
        """
        record = await self._find()
        if live := process_streams(self._server).stream(self._stream_id):
            self._source = LocalSource(live, self.position)
        else:
            self._source = await RemoteSource.open(self._server, record, self.position)
        return self._source

    async def aclose(self) -> None:
        """Leave the stream. May be called again."""
        if self._source:
            await self._source.leave()

    async def _find(self) -> StreamRecord:
        begun_at = time.monotonic()
        while True:
            try:
                return await find_record(self._server, self._stream_id, site=self._site)
            except StreamUnknown as error:
                is_old = stream_age_seconds(self._stream_id) > settings.STREAM_LOG_TTL_SECONDS
                if self.position and is_old:
                    raise CursorExpired(f"The stream {self._stream_id} is no longer stored.") from error
                # Whoever has a cursor has read it: after a flush of Redis its process writes it again in a beat or two.
                patience = max(self._start_timeout_seconds, 2 * HEARTBEAT_SECONDS if self.position else 0)
                if time.monotonic() - begun_at >= patience:
                    raise
            await asyncio.sleep(POLL_SECONDS)


class LocalSource:
    """A stream that this process serves."""

    def __init__(self, stream: LocalStream, after: int) -> None:
        stream.after(after)
        stream.attach()
        self._stream = stream
        self._is_attached = True

    @property
    def about(self) -> StreamInfo:
        return self._stream.about

    async def next(self, after: int, idle_seconds: float | None) -> list[LoggedEvent] | StreamEnd:
        """Return the events after this one, or the end; none when nothing comes for so long."""
        while not (events := self._stream.after(after)):
            if self._stream.end:
                return self._stream.end
            if not await self._stream.wait(idle_seconds):
                break
        return events

    async def leave(self) -> None:
        """Count as a reader no longer."""
        if self._is_attached:
            self._is_attached = False
            self._stream.detach()

"""The reading side of a stream, in any process: exactly what comes after a cursor, and on to the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Self

import redis.asyncio
from django.conf import settings

from core.redis import redis_errors
from streams.canceling import note_cancel
from streams.entries import BEAT_SECONDS, About, End, Event, Record, decode_record, record_key
from streams.errors import CursorExpired, StreamUnknown
from streams.here import here
from streams.ids import age_seconds, check_stream_id
from streams.live import LiveStream
from streams.remote import Remote

#: How often one looks for a stream that is about to begin.
PEEK_SECONDS = 0.05


async def find_record(server: redis.asyncio.Redis, stream_id: str, *, site: str) -> Record:
    """Return what is known of a stream, wherever it is served. Raises `StreamUnknown` and `RedisAway`."""
    if stream := here(server).stream(stream_id):
        record = stream.record
    else:
        check_stream_id(stream_id)
        packed = await here(server).ask("GET", record_key(stream_id))
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
    if stream := here(server).stream(stream_id):
        stream.cancel("asked")
        return stream.end is None
    if record.end:
        return False
    with redis_errors():
        pipeline = server.pipeline(transaction=False)
        note_cancel(pipeline, record.process, stream_id)
        await pipeline.execute()
    return True


def follow(
    server: redis.asyncio.Redis,
    stream_id: str,
    after: int,
    *,
    site: str,
    idle_seconds: float | None = None,
    patience_seconds: float = 0,
) -> "Following":
    """Read a stream from any process: `async with follow(…) as following: async for events in following: …`.

    With `idle_seconds`, an empty list says that nothing came for so long. A stream that may be about to begin is
    waited for `patience_seconds`.
    """
    return Following(server, stream_id, after, site=site, idle_seconds=idle_seconds, patience_seconds=patience_seconds)


class Following:
    """One reader's place in a stream. Leave it: a stream that nobody reads is canceled after a while."""

    def __init__(
        self,
        server: redis.asyncio.Redis,
        stream_id: str,
        after: int,
        *,
        site: str,
        idle_seconds: float | None,
        patience_seconds: float,
    ) -> None:
        self._server = server
        self._stream_id = stream_id
        self._site = site
        self._idle_seconds = idle_seconds
        self._patience_seconds = patience_seconds
        self._source: Local | Remote | None = None
        #: The last event that was handed out.
        self.position = after
        #: How the stream ended, once everything was handed out.
        self.end: End | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
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
        if isinstance(found, End):
            self.end = found
            await self.aclose()
            raise StopAsyncIteration
        if found:
            self.position = found[-1].seq
        return found

    @property
    def about(self) -> About:
        """Whose stream it is. What was not known when it began, its status, is known with the first event."""
        assert self._source is not None, "Open it first."
        return self._source.about

    async def open(self) -> "Local | Remote":
        """Find the stream and the place in it, so that what is wrong is known before anything is sent.

        Raises `StreamUnknown`, `CursorAhead`, `CursorExpired`, `Orphaned` and `RedisAway`.
        """
        record = await self._find()
        if live := here(self._server).stream(self._stream_id):
            self._source = Local(live, self.position)
        else:
            self._source = await Remote.open(self._server, record, self.position)
        return self._source

    async def aclose(self) -> None:
        """Leave the stream. May be called again."""
        if self._source:
            await self._source.leave()

    async def _find(self) -> Record:
        begun_at = time.monotonic()
        while True:
            try:
                return await find_record(self._server, self._stream_id, site=self._site)
            except StreamUnknown as error:
                is_old = age_seconds(self._stream_id) > settings.STREAM_LOG_SECONDS
                if self.position and is_old:
                    raise CursorExpired(f"The stream {self._stream_id} is no longer kept.") from error
                # Whoever has a cursor has read it: after a flush of Redis its process writes it again in a beat or two.
                patience = max(self._patience_seconds, 2 * BEAT_SECONDS if self.position else 0)
                if time.monotonic() - begun_at >= patience:
                    raise
            await asyncio.sleep(PEEK_SECONDS)


class Local:
    """A stream that this process serves."""

    def __init__(self, stream: LiveStream, after: int) -> None:
        stream.after(after)
        stream.attach()
        self._stream = stream
        self._is_attached = True

    @property
    def about(self) -> About:
        return self._stream.about

    async def next(self, after: int, idle_seconds: float | None) -> list[Event] | End:
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

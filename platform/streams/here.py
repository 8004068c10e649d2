"""What this process holds of streams, for each Redis it speaks with: one loop has one client, and so one of these."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio

from core.redis import redis_errors
from streams.flusher import Flusher, Source
from streams.live import LiveStream
from streams.tails import Tails

ASKING_AT_ONCE = 32

_held: dict[redis.asyncio.Redis, "Here"] = {}


class Here:
    """The streams that are served here, the way to their logs, and those of other processes that are read here."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        #: Of streams that run, or that ended and are not in the log yet.
        self.writers: dict[str, Source] = {}
        self.flusher = Flusher(server)
        self.tails = Tails(server)
        self._server = server
        # Thousands who come back at once must not take every connection of the process.
        self._turn = asyncio.Semaphore(ASKING_AT_ONCE)

    def stream(self, stream_id: str) -> LiveStream | None:
        """Return a stream that is served here."""
        writer = self.writers.get(stream_id)
        return writer.stream if writer else None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[redis.asyncio.Redis]:
        """Give the server to one who asks about a stream, when it is its turn. Raises `RedisAway`."""
        async with self._turn:
            with redis_errors():
                yield self._server

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self.flusher.stop()
        await self.tails.stop()
        _held.pop(self._server, None)


def here(server: redis.asyncio.Redis) -> Here:
    """Return what this process holds for a client."""
    if server not in _held:
        _held[server] = Here(server)
    return _held[server]

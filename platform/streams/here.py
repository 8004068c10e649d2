"""What this process holds of streams, for each Redis it speaks with: one loop has one client, and so one of these."""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio

from streams.flusher import Flusher, Source
from streams.live import LiveStream
from streams.tails import Tails

READERS_AT_ONCE = 32

_held: WeakKeyDictionary[redis.asyncio.Redis, "Here"] = WeakKeyDictionary()


class Here:
    """The streams that are served here, the way to their logs, and those of other processes that are read here."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        #: Of streams that run, or that ended and are not in the log yet.
        self.writers: dict[str, Source] = {}
        self.flusher = Flusher(server)
        self.tails = Tails(server)
        self._server = server
        # Thousands who look into logs at once must not take every connection of the process.
        self._reading = asyncio.Semaphore(READERS_AT_ONCE)

    def stream(self, stream_id: str) -> LiveStream | None:
        """Return a stream that is served here."""
        writer = self.writers.get(stream_id)
        return writer.stream if writer else None

    async def read(self, key: str, after: int, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Return the entries of a log that hold what comes after an event."""
        async with self._reading:
            found: Any = await self._server.xrange(key, f"({after}-0", count=count)
        entries: list[tuple[bytes, dict[bytes, bytes]]] = found
        return entries

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self.flusher.stop()
        await self.tails.stop()


def here(server: redis.asyncio.Redis) -> Here:
    """Return what this process holds for a client."""
    if server not in _held:
        _held[server] = Here(server)
    return _held[server]

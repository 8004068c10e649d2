"""The way to a WebSocket's client: one message after the other, and never far ahead of what was read.

Servers differ in what they buffer for a client that does not read: Daphne everything. So the client says itself how far
it has read: every so many bytes there is a `ping`, and nothing goes out beyond a bound until its `pong` has come.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from api.live.websocket.messages import ServerMessage, ServerPing, encode_message

#: There are so many pings on the way to the bound.
PINGS_PER_WINDOW = 4
#: Words that answer the client's own do not wait, but who reads none of them is sent away at so many times the bound.
HARD_LIMIT_FACTOR = 2


class WebSocketClosed(Exception):
    """The client is gone, or was sent away."""


class WebSocketSender:
    """Knows what is on its way to one client."""

    def __init__(self, send: Callable[[Mapping[str, Any]], Awaitable[None]], unread_bytes: int) -> None:
        self._send = send
        self._max_unread_bytes = unread_bytes
        self._sent = self._read = 0
        self._pinged_at_bytes = 0
        self._last_id = 0
        #: Pings without an answer: id, when, and what had been sent by then.
        self._unanswered_pings: deque[tuple[int, float, int]] = deque()
        self._writing_since: float | None = None
        self._lock = asyncio.Lock()
        self._read_progress = asyncio.Event()
        self.is_closed = False
        #: It was told too much that it has not read.
        self.is_overrun = False
        #: When something was last sent.
        self.last_sent_at = time.monotonic()

    @property
    def unanswered_since(self) -> float | None:
        """Since when a ping has been without its answer, or a message stuck on its way out."""
        return self._unanswered_pings[0][1] if self._unanswered_pings else self._writing_since

    async def send(self, message: ServerMessage) -> None:
        """Send one word now, unless the client is too far behind to be told anything more. Raises `WebSocketClosed`."""
        if self._sent - self._read >= HARD_LIMIT_FACTOR * self._max_unread_bytes:
            self.is_overrun = True
            raise WebSocketClosed
        async with self._lock:
            await self._write_and_ping(encode_message(message))

    async def send_all(self, texts: Iterable[str]) -> None:
        """Send these messages, each once the client has read enough of what came before. Raises `WebSocketClosed`."""
        for text in texts:
            # Nobody has the turn while it waits: the answer that it waits for may need to be answered.
            while self._sent - self._read >= self._max_unread_bytes and not self.is_closed:
                self._read_progress.clear()
                await self._read_progress.wait()
            async with self._lock:
                await self._write_and_ping(text)

    async def ping(self) -> None:
        """Send a ping. One that waits for an answer is enough."""
        if not self._unanswered_pings and not self._lock.locked():
            async with self._lock:
                await self._ping()

    def acknowledge(self, ping_id: int) -> None:
        """Note the answer to a ping, and so to those before it."""
        while self._unanswered_pings and self._unanswered_pings[0][0] <= ping_id <= self._last_id:
            self._read = self._unanswered_pings.popleft()[2]
        self._read_progress.set()

    def close(self) -> None:
        """Send nothing more."""
        self.is_closed = True
        self._read_progress.set()

    async def _write_and_ping(self, text: str) -> None:
        await self._write(text)
        if self._sent - self._pinged_at_bytes >= self._max_unread_bytes // PINGS_PER_WINDOW:
            await self._ping()

    async def _ping(self) -> None:
        self._last_id += 1
        self._pinged_at_bytes = self._sent
        self._unanswered_pings.append((self._last_id, time.monotonic(), self._sent))
        await self._write(encode_message(ServerPing(id=self._last_id)))

    async def _write(self, text: str) -> None:
        if self.is_closed:
            raise WebSocketClosed
        self._sent += len(text)
        self.last_sent_at = self._writing_since = time.monotonic()
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError as error:
            raise WebSocketClosed from error
        finally:
            self._writing_since = None

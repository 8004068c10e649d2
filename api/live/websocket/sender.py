"""Sends messages to one WebSocket client, with backpressure: never far ahead of what the client has read.

Servers differ in what they buffer for a client that does not read; Daphne buffers everything. So the client
acknowledges what it has read: after every quarter of the bound the sender sends a `ping`, and beyond the bound it waits
for the `pong`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from api.live.websocket.messages import ServerMessage, ServerPing, encode_message

#: Pings per bound of unread bytes.
PINGS_PER_WINDOW = 4
#: Replies to the client's own messages do not wait for the bound; at this multiple of it, the connection is closed.
HARD_LIMIT_FACTOR = 2


class WebSocketClosed(Exception):
    """The client disconnected, or the connection was closed."""


class WebSocketSender:
    """Sends to one client, and counts what the client has not acknowledged."""

    def __init__(self, send: Callable[[Mapping[str, Any]], Awaitable[None]], unread_bytes: int) -> None:
        self._send = send
        self._max_unread_bytes = unread_bytes
        self._sent = self._read = 0
        self._pinged_at_bytes = 0
        self._last_id = 0
        #: Pings without a pong: id, time, and the bytes that had been sent by then.
        self._unanswered_pings: deque[tuple[int, float, int]] = deque()
        self._writing_since: float | None = None
        self._lock = asyncio.Lock()
        self._read_progress = asyncio.Event()
        self.is_closed = False
        #: The client did not read its replies, up to the hard limit.
        self.is_overrun = False
        #: When something was last sent.
        self.last_sent_at = time.monotonic()

    @property
    def unanswered_since(self) -> float | None:
        """Since when a ping has been unanswered, or a message has not been accepted by the server; None if neither."""
        return self._unanswered_pings[0][1] if self._unanswered_pings else self._writing_since

    async def send(self, message: ServerMessage) -> None:
        """Send one message without waiting for the bound. Raises `WebSocketClosed`, also at the hard limit."""
        if self._sent - self._read >= HARD_LIMIT_FACTOR * self._max_unread_bytes:
            self.is_overrun = True
            raise WebSocketClosed
        async with self._lock:
            await self._write_and_ping(encode_message(message))

    async def send_all(self, texts: Iterable[str]) -> None:
        """Send these messages, each once the client has read enough of what came before. Raises `WebSocketClosed`."""
        for text in texts:
            # Not under the lock: the client's next message, which it may send before the pong, may need a reply.
            while self._sent - self._read >= self._max_unread_bytes and not self.is_closed:
                self._read_progress.clear()
                await self._read_progress.wait()
            async with self._lock:
                await self._write_and_ping(text)

    async def ping(self) -> None:
        """Send a ping, unless one is unanswered."""
        if not self._unanswered_pings and not self._lock.locked():
            async with self._lock:
                await self._ping()

    def acknowledge(self, ping_id: int) -> None:
        """Note the pong to a ping, and thereby to all earlier ones."""
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

"""The way to a WebSocket's client: one message after the other, and never far ahead of what was read.

Servers differ in what they buffer for a client that does not read: Daphne everything. So the client says itself how far
it has read: every so many bytes there is a `ping`, and nothing goes out beyond a bound until its `pong` has come.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from api.live.socket_words import Asking, ServerWord, write

#: There are so many pings on the way to the bound.
PINGS = 4
#: Words that answer the client's own do not wait, but who reads none of them is sent away at so many times the bound.
PATIENCE = 2


class LineClosed(Exception):
    """The client is gone, or was sent away."""


class Line:
    """Knows what is on its way to one client."""

    def __init__(self, send: Callable[[Mapping[str, Any]], Awaitable[None]], unread_bytes: int) -> None:
        self._send = send
        self._most_unread = unread_bytes
        self._sent = self._read = 0
        self._asked_at_bytes = 0
        self._last_id = 0
        #: Pings without an answer: id, when, and what had been sent by then.
        self._asked: deque[tuple[int, float, int]] = deque()
        self._putting_since: float | None = None
        self._turn = asyncio.Lock()
        self._was_read = asyncio.Event()
        self.is_closed = False
        #: It was told too much that it has not read.
        self.is_overrun = False
        #: When something was last sent.
        self.told_at = time.monotonic()

    @property
    def unanswered_since(self) -> float | None:
        """Since when a ping has been without its answer, or a message stuck on its way out."""
        return self._asked[0][1] if self._asked else self._putting_since

    async def tell(self, word: ServerWord) -> None:
        """Send one word now, unless the client is too far behind to be told anything more. Raises `LineClosed`."""
        if self._sent - self._read >= PATIENCE * self._most_unread:
            self.is_overrun = True
            raise LineClosed
        async with self._turn:
            await self._put_and_ask(write(word))

    async def pass_on(self, texts: Iterable[str]) -> None:
        """Send these messages, each once the client has read enough of what came before. Raises `LineClosed`."""
        for text in texts:
            # Nobody has the turn while it waits: the answer that it waits for may need to be answered.
            while self._sent - self._read >= self._most_unread and not self.is_closed:
                self._was_read.clear()
                await self._was_read.wait()
            async with self._turn:
                await self._put_and_ask(text)

    async def ask(self) -> None:
        """Send a ping. One that waits for an answer is enough."""
        if not self._asked and not self._turn.locked():
            async with self._turn:
                await self._ask()

    def take(self, ping_id: int) -> None:
        """Note the answer to a ping, and so to those before it."""
        while self._asked and self._asked[0][0] <= ping_id <= self._last_id:
            self._read = self._asked.popleft()[2]
        self._was_read.set()

    def close(self) -> None:
        """Send nothing more."""
        self.is_closed = True
        self._was_read.set()

    async def _put_and_ask(self, text: str) -> None:
        await self._put(text)
        if self._sent - self._asked_at_bytes >= self._most_unread // PINGS:
            await self._ask()

    async def _ask(self) -> None:
        self._last_id += 1
        self._asked_at_bytes = self._sent
        self._asked.append((self._last_id, time.monotonic(), self._sent))
        await self._put(write(Asking(id=self._last_id)))

    async def _put(self, text: str) -> None:
        if self.is_closed:
            raise LineClosed
        self._sent += len(text)
        self.told_at = self._putting_since = time.monotonic()
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError as error:
            raise LineClosed from error
        finally:
            self._putting_since = None

"""A client for the load generator: HTTP/1.1 on a bare protocol, so that it takes as little of the core as can be."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

EVENT = b"\ndata:"
DONE = b"[DONE]"
#: The first piece of text; before it there may be an event that only tells the role.
TOKEN = re.compile(rb'"content": ?"[^"]')
#: Bytes kept from the last read, for a marker that is split between two reads.
OVERLAP = len(EVENT) - 1
SAMPLE_BYTES = 300
#: The connection limit of an open loop; a system that needs more has collapsed.
MOST_CONNECTIONS = 1024


@dataclass(slots=True)
class Question:
    """One request and the observations of its response."""

    request: bytes
    #: When it should have been sent.
    due: float
    stream: bool
    ended: Callable[["Question"], None]
    #: Called with the number of events that just arrived.
    came: Callable[[int], None]
    status: int = 0
    first_token_at: float = 0.0
    ended_at: float = 0.0
    is_done: bool = False
    is_hit: bool = False
    failure: str = ""
    sent_before: bool = False

    def close(self, failure: str) -> None:
        self.ended_at, self.failure = time.monotonic(), failure
        self.ended(self)


class Connection(asyncio.Protocol):
    """Sends one request after the other."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._question: Question | None = None
        self._has_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, question: Question) -> None:
        self._question, self._seen, self._untold, self._sample, self._began = question, b"\n", b"", b"", False
        self._transport.write(question.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            question, self._question = self._question, None
            self._transport.abort()
            if question is not None:
                question.close(f"no HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.drop(self)
        if (question := self._question) is None:
            return
        self._question = None
        # Servers close idle connections; every client then repeats the request on a new one.
        if self._has_answered and not self._began and not question.sent_before:
            question.sent_before = True
            self._pool.ask(question)
        else:
            question.close(f"the connection was closed after {len(self._sample)} bytes: {self._sample[:80]!r}")

    def close(self) -> None:
        self._question = None
        self._transport.abort()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-cache" and self._question is not None:
            self._question.is_hit = value.lower().startswith(b"hit")

    def on_body(self, data: bytes) -> None:
        question = self._question
        if question is None:
            return
        if len(self._sample) < SAMPLE_BYTES:
            self._sample += data[:SAMPLE_BYTES]
        if question.stream:
            self._read_events(question, data)

    def _read_events(self, question: Question, data: bytes) -> None:
        seen = self._seen + data
        if events := seen.count(EVENT):
            question.came(events)
        if not question.first_token_at:
            self._untold += data
            if TOKEN.search(self._untold):
                question.first_token_at, self._untold = time.monotonic(), b""
        if DONE in seen:
            question.is_done = True
        self._seen = seen[-OVERLAP:]

    def on_message_complete(self) -> None:
        self._has_answered = True
        question, self._question = self._question, None
        if question is None:
            return
        question.status = self._parser.get_status_code()
        failure = _judge(question, self._sample)
        # First, so that a caller that sends again immediately finds it free.
        if self._parser.should_keep_alive():
            self._pool.free(self)
        else:
            self._transport.close()
        question.close(failure)


class Pool:
    """A connection pool for one server; requests wait when all connections are busy and the limit is reached."""

    def __init__(self, host: str, port: int, most: int = MOST_CONNECTIONS) -> None:
        self._host, self._port, self._most = host, port, most
        self._free: list[Connection] = []
        self._waiting: deque[Question] = deque()
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[Connection | None]] = set()

    async def fill(self, count: int) -> None:
        for _ in range(count):
            connection = await self._connect()
            self._free.append(connection)

    def ask(self, question: Question) -> None:
        """Send it over the most recently used connection, so that the others stay idle."""
        if self._free:
            self._free.pop().ask(question)
            return
        self._waiting.append(question)
        if len(self._open) + len(self._opening) < self._most:
            task = asyncio.get_running_loop().create_task(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def free(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        if self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._free.append(connection)

    def drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()

    async def _open_one(self) -> Connection | None:
        try:
            connection = await self._connect()
        except OSError as error:
            if self._waiting:
                self._waiting.popleft().close(f"no connection: {error}")
            return None
        self.free(connection)
        return connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        self._open.add(connection)
        return connection


def _judge(question: Question, sample: bytes) -> str:
    """Return what is wrong with the response, or an empty string."""
    if question.status != 200:
        return f"{question.status}: {sample[:SAMPLE_BYTES].decode(errors='replace')}"
    if question.stream and not question.is_done:
        return "the stream ended without [DONE]"
    return ""

"""A scripted HTTP server in place of a provider, exact to the byte."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it was received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Wire:
    """The connection of a request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang_up(self) -> None:
        """Close the connection in an orderly way."""
        self.writer.close()

    async def reset(self) -> None:
        """End the connection with a reset."""
        # The peer must have read the sent data first, or the reset discards it.
        await asyncio.sleep(0.02)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_closed(self) -> None:
        """Wait until the peer closes the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(1024):
                pass


Act: TypeAlias = Callable[[Wire], Awaitable[None]]


@dataclass(slots=True)
class Upstream:
    """Plays one act for each request; the last one is repeated."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    closed_by_client: asyncio.Event = field(default_factory=asyncio.Event)
    _acts: deque[Act] = field(default_factory=deque)

    def plays(self, *acts: Act) -> None:
        self._acts = deque(acts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        wire = Wire(reader, writer)
        try:
            while (seen := await _read_request(reader)) is not None:
                self.seen.append(seen)
                act = self._acts.popleft() if len(self._acts) > 1 else self._acts[0]
                await act(wire)
            self.closed_by_client.set()
        except ConnectionError:
            self.closed_by_client.set()
        finally:
            writer.close()


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(upstream.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def answers(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Act:
    """Answer with a body and keep the connection."""

    async def act(wire: Wire) -> None:
        await wire.send(head(status, content_type, content_length=str(len(body)), **headers) + body)

    return act


def streams(*pieces: bytes, content_type: str = "text/event-stream; charset=utf-8") -> Act:
    """Stream pieces, each in a write of its own, and end the chunked body."""

    async def act(wire: Wire) -> None:
        await begin_stream(wire, *pieces, content_type=content_type)
        await wire.send(b"0\r\n\r\n")

    return act


def streams_then(then: Act, *pieces: bytes) -> Act:
    """Stream pieces, then run another act instead of the end."""

    async def act(wire: Wire) -> None:
        await begin_stream(wire, *pieces)
        await then(wire)

    return act


def sends(data: bytes) -> Act:
    """Send exactly these bytes and close the connection."""

    async def act(wire: Wire) -> None:
        await wire.send(data)
        await wire.hang_up()

    return act


async def falls_silent(wire: Wire) -> None:
    await wire.until_closed()
    raise ConnectionError


async def begin_stream(wire: Wire, *pieces: bytes, content_type: str = "text/event-stream") -> None:
    await wire.send(head(200, content_type, transfer_encoding="chunked"))
    for piece in pieces:
        await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        # Yield to the event loop, so that the client reads the pieces separately.
        await asyncio.sleep(0)


def head(status: int, content_type: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Seen(lines[0].split(" ")[1], headers, msgspec.json.decode(body))

"""A real HTTP receiver on loopback: it plays scripted responses and records the requests."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias, cast


@dataclass(frozen=True, slots=True)
class Received:
    line: str
    #: With lower-case names.
    headers: dict[str, str]
    body: bytes


#: Writes a response, or fails to.
Behavior: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """`script` holds the behaviors for the next requests; when it is empty, `otherwise` applies."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    script: list[Behavior] = field(default_factory=list)
    otherwise: Behavior = field(default_factory=lambda: answering(200, body=b"thank you"))
    #: One item per request, for tests that wait for one.
    arrivals: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    under_way: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.under_way[task] = writer
        with suppress(OSError, asyncio.IncompleteReadError):
            self.received.append(await _read(reader))
            self.arrivals.put_nowait(None)
            await (self.script.pop(0) if self.script else self.otherwise)(writer)
        writer.close()

    async def hang_up(self) -> None:
        """Abort open connections and wait for their tasks."""
        for task, writer in self.under_way.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self.under_way, return_exceptions=True)


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.hang_up()


async def _read(reader: asyncio.StreamReader) -> Received:
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in lines)}
    return Received(line, headers, await reader.readexactly(int(headers["content-length"])))


# Behaviors


def answering(status: int, *headers: str, body: bytes = b"") -> Behavior:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(head).encode() + body)
        await writer.drain()

    return answer


def raw(answer: bytes) -> Behavior:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return write


#: Reads the request and closes the connection.
cut: Behavior = raw(b"")


def dripping(start: bytes) -> Behavior:
    """Send `start`, and then single bytes at intervals, forever."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.transport.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    return drip


def flooding(size: int, written: list[int]) -> Behavior:
    """Send a body of `size` bytes as fast as the client reads it, and record how much was sent."""

    async def flood(writer: asyncio.StreamWriter) -> None:
        written.append(0)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
            written[-1] += 65_536

    return flood

"""The client for providers: what it keeps, and what it never does."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import aiohttp
import pytest

from core.provider_http import ClientClosed, ProviderClient, track_connection

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class ShortLived:
    """A server in a thread: each connection gets one answer, and is closed when the test says so."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests = 0
        self.kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close_kept(self) -> None:
        for connection in self.kept:
            connection.close()
        self.kept.clear()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.recv(65536)
            self.requests += 1
            self.kept.append(connection)
            connection.sendall(ANSWER)


@contextmanager
def short_lived() -> Iterator[ShortLived]:
    server = ShortLived()
    try:
        yield server
    finally:
        # `close` alone would leave the thread in `accept`.
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        server.close_kept()


async def ask(http: ProviderClient, url: str) -> str:
    """Post something, and return the whole answer."""
    response = await http.send(url, {}, b"x", connect_seconds=5)
    try:
        body = b""
        while some := await response.read_chunk():
            body += some
        return body.decode()
    finally:
        await response.aclose()


async def test_a_connection_closed_by_the_server_is_not_reused() -> None:
    with short_lived() as server:
        async with aclosing(ProviderClient()) as http:
            for count in range(1, 4):
                # No await between the close and the next request: the event loop has not seen it yet.
                server.close_kept()
                assert await ask(http, server.url) == "ok"
                assert server.requests == count


async def test_a_live_connection_is_reused() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(65536):
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aclosing(ProviderClient()) as http:
        for _ in range(5):
            await ask(http, url)

    assert connections == 1


async def test_progress_states_whether_anything_may_have_been_sent(unused_tcp_port: int) -> None:
    async with aclosing(ProviderClient()) as http:
        with short_lived() as server:
            with track_connection() as progress:
                await ask(http, server.url)
            assert progress.connected

        with track_connection() as progress, pytest.raises(aiohttp.ClientError):
            await ask(http, f"http://127.0.0.1:{unused_tcp_port}")
        assert not progress.connected


async def test_a_client_that_was_never_used_can_be_closed() -> None:
    await ProviderClient().aclose()


async def test_a_closed_client_sends_nothing() -> None:
    http = ProviderClient()
    await http.aclose()

    with pytest.raises(ClientClosed):
        await ask(http, "http://x.test")


async def test_only_the_given_headers_are_sent() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head + await reader.readexactly(1))
            writer.write(ANSWER.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aclosing(ProviderClient()) as http:
        for _ in range(2):
            await ask(http, f"http://127.0.0.1:{port}/path?a=b")
    server.close()

    head, _, body = seen[1].decode().partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    assert (line, body) == ("POST /path?a=b HTTP/1.1", "x")
    assert dict(header.lower().split(": ") for header in headers) == {
        "host": f"127.0.0.1:{port}",
        "user-agent": "nightdesk",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-length": "1",
        "content-type": "application/octet-stream",
    }

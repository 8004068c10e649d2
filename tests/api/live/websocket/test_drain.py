"""Graceful shutdown: a draining process closes its WebSockets, so that clients reconnect to another one."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from pytest_django import Settings

from api.asgi import get_application
from api.live.asgi import asgi_application
from live.runtime import close_live_runtime, live_runtime
from tenants.credentials import create_site

Message = Mapping[str, Any]
Headers = list[tuple[bytes, bytes]]


class Connection:
    """The server's side of one WebSocket."""

    def __init__(self, headers: Headers) -> None:
        self.scope = {"type": "websocket", "path": "/v1/ws", "headers": headers}
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})

    def serve(self) -> "asyncio.Task[None]":
        application = asgi_application(get_application())
        return asyncio.create_task(application(self.scope, self.incoming.get, self.outgoing.put))

    async def closed(self) -> list[Message]:
        """Return what was sent, up to the close."""
        sent = [await self.outgoing.get()]
        while sent[-1]["type"] != "websocket.close":
            sent.append(await self.outgoing.get())
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": sent[-1]["code"]})
        return sent


def run_with_runtime(test: Callable[[], Awaitable[None]]) -> None:
    async def with_runtime() -> None:
        try:
            async with asyncio.timeout(20):
                await test()
        finally:
            await close_live_runtime()

    asyncio.run(with_runtime())


@pytest.fixture
def headers(transactional_db: None) -> Headers:
    key = create_site("Bakery", "bakery").api_key.secret
    return [(b"authorization", f"Bearer {key}".encode())]


def test_an_open_connection_is_closed_when_the_drain_begins(headers: Headers) -> None:
    async def drain() -> None:
        connection = Connection(headers)
        serving = connection.serve()
        sent = [await connection.outgoing.get() for _ in range(2)]
        assert [sent[0]["type"], json.loads(sent[1]["text"])["type"]] == ["websocket.accept", "ready"]

        (await live_runtime()).draining.set()

        assert (await connection.closed())[-1]["code"] == 1001
        await serving

    run_with_runtime(drain)


def test_a_new_connection_is_closed_with_try_again(headers: Headers) -> None:
    async def connect_late() -> None:
        (await live_runtime()).draining.set()
        connection = Connection(headers)
        serving = connection.serve()

        accepted, closed = await connection.closed()

        assert (accepted["type"], closed["code"]) == ("websocket.accept", 1013)
        await serving

    run_with_runtime(connect_late)


def test_a_connection_that_reads_nothing_is_dropped(headers: Headers, settings: Settings) -> None:
    settings.STREAM_KEEPALIVE_SECONDS = settings.WEBSOCKET_PONG_SECONDS = settings.WEBSOCKET_AUTH_SECONDS = 0.2

    async def stall() -> None:
        connection = Connection(headers)
        connection.outgoing = asyncio.Queue(maxsize=1)

        await connection.serve()

        assert connection.outgoing.full()

    run_with_runtime(stall)

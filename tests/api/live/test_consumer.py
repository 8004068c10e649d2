"""The consumer of a live HTTP request, as a server sees it."""

import asyncio
from typing import Any

import pytest

from api.live.asked import Asked
from api.live.consumer import LiveConsumer, Reply

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}


class Broken(Exception): ...


async def refuse(asked: Asked, reply: Reply, limit: int) -> None: ...


async def test_an_answer_that_breaks_off_is_told_to_the_server_at_once() -> None:
    async def handler(asked: Asked, reply: Reply) -> None:
        await reply.begin(200, [])
        await reply.write(b"The beginning")
        raise Broken

    sent: list[dict[str, Any]] = []
    said = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        # The client stays, and waits.
        return said.pop() if said else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        with pytest.raises(Broken):
            await LiveConsumer(handler, refuse, 1000)(SCOPE, receive, send)

    assert sent[-1] == {"type": "http.response.body", "body": b"The beginning", "more_body": True}

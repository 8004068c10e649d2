"""The upper bound: a gateway that only passes bytes through. python -m tests.bench.gateways.passthrough PORT UPSTREAM

Bare ASGI on uvicorn and aiohttp's client, the same libraries that Nightdesk's live path uses.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import aiohttp
import uvicorn

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class PassThrough:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                headers={"Authorization": "Bearer sk-simulator", "Content-Type": "application/json"},
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        body = await _body_of(receive)
        async with self._http.post(self._upstream + scope["path"], data=body) as answer:
            if answer.content_type != "text/event-stream":
                await _send_whole(answer, send)
                return
            passing = asyncio.ensure_future(_send_stream(answer, send))
            leaving = asyncio.ensure_future(_client_left(receive))
            await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
            passing.cancel()
            leaving.cancel()


async def _body_of(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_whole(answer: aiohttp.ClientResponse, send: Send) -> None:
    body = await answer.read()
    await send(_start(answer, [(b"content-length", b"%d" % len(body))]))
    await send({"type": "http.response.body", "body": body})


async def _send_stream(answer: aiohttp.ClientResponse, send: Send) -> None:
    await send(_start(answer, []))
    async for data in answer.content.iter_any():
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _start(answer: aiohttp.ClientResponse, headers: list[tuple[bytes, bytes]]) -> Message:
    content_type = (b"content-type", answer.headers["Content-Type"].encode())
    return {"type": "http.response.start", "status": answer.status, "headers": [content_type, *headers]}


if __name__ == "__main__":
    uvicorn.run(
        PassThrough(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )

"""The ASGI handler of live HTTP requests: bodies, errors and disconnects."""

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from pytest_django import Settings

from api.errors import ApiError
from api.live.http_handler import LiveHttpHandler, LiveHttpResponse
from api.live.http_request import LiveHttpRequest

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}


class Broken(Exception): ...


async def reject(http_request: LiveHttpRequest, response: LiveHttpResponse, why: ApiError) -> None:
    await response.send(400, [], type(why).__name__.encode())


@pytest.mark.parametrize("has_started", [True, False])
async def test_an_error_in_a_response_is_left_to_the_server_immediately(has_started: bool) -> None:
    async def handler(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        if has_started:
            await response.start(200, [])
            await response.write(b"The beginning")
        raise Broken

    sent: list[dict[str, Any]] = []
    said = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        # The client stays connected.
        return said.pop() if said else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        # Once the response has started, Daphne cannot handle an error.
        with nullcontext() if has_started else pytest.raises(Broken):
            await LiveHttpHandler(handler, reject, 1000)(SCOPE, receive, send)

    assert [message.get("more_body") for message in sent] == ([None, True] if has_started else [])


async def test_an_error_after_the_client_disconnected_is_ignored() -> None:
    async def handler(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise Broken

    said: list[dict[str, Any]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"", "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return said.pop()

    async def send(message: dict[str, Any]) -> None: ...

    async with asyncio.timeout(5):
        await LiveHttpHandler(handler, reject, 1000)(SCOPE, receive, send)


@pytest.mark.parametrize("pieces", [[], [b"{"]], ids=["nothing comes", "it stops"])
async def test_a_stalled_body_is_rejected(settings: Settings, pieces: list[bytes]) -> None:
    settings.BODY_READ_TIMEOUT_SECONDS = 0.05
    sent: list[dict[str, Any]] = []

    async def handler(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        raise AssertionError("Half a body was taken for a whole one.")

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        found: dict[str, Any] = await asyncio.get_running_loop().create_future()
        return found

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await LiveHttpHandler(handler, reject, 1000)(SCOPE, receive, send)

    assert sent[-1] == {"type": "http.response.body", "body": b"BodyTimeout", "more_body": False}


async def test_the_read_timeout_does_not_apply_to_a_client_waiting_for_the_response(settings: Settings) -> None:
    settings.BODY_READ_TIMEOUT_SECONDS = 0.05
    sent: list[dict[str, Any]] = []
    said = [{"type": "http.request", "body": b"{}", "more_body": False}]
    answered = asyncio.Event()

    async def handler(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        await asyncio.sleep(0.2)
        await response.send(200, [], http_request.body)
        answered.set()

    async def receive() -> dict[str, Any]:
        if said:
            return said.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await LiveHttpHandler(handler, reject, 1000)(SCOPE, receive, send)

    assert sent[-1]["body"] == b"{}"

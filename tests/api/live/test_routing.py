"""Which ASGI application serves an address: the live path, the WebSocket consumer or Django."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.routing import LIVE_ROUTES, http_router, websocket_router

EMPTY_BODY = {"type": "http.request", "body": b"", "more_body": False}


async def django(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"django"})


async def echo(path: str, http_request: LiveHttpRequest, response: LiveHttpResponse, **parameters: str) -> None:
    await response.send(200, [], " ".join((path, *parameters.values())).encode())


async def served_by(method: str, path: str) -> str:
    """Return the path of the route that serves a request and its parameters, or `django`."""
    router = http_router(django, [replace(route, handler=partial(echo, route.path)) for route in LIVE_ROUTES])
    sent: list[Any] = []

    async def receive() -> Any:
        return EMPTY_BODY

    async def send(message: Any) -> None:
        sent.append(message)

    await router({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return str(sent[-1]["body"].decode())


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/chat/completions", "v1/chat/completions"),
        ("GET", "/v1/chat/completions", "django"),
        ("POST", "/v1/chat/completions/", "django"),
        ("POST", "//v1/chat/completions", "django"),
        ("POST", "/v1/chat/completions\n", "django"),
        ("GET", "/v1/models/org/model", r"^v1/models/(?P<name>.{1,200})$ org/model"),
        ("GET", "/v1/streams/stm_1/events", r"^v1/streams/(?P<stream_id>[^/]{1,64})/events$ stm_1"),
        ("DELETE", "/v1/streams/stm_1", r"^v1/streams/(?P<stream_id>[^/]{1,64})$ stm_1"),
        ("GET", "/v1/jobs", "django"),
        ("GET", "/readyz", "django"),
        ("GET", "/", "django"),
    ],
)
async def test_an_address_is_served_by_its_route_or_by_django(method: str, path: str, route: str) -> None:
    assert await served_by(method, path) == route


async def test_a_websocket_to_another_address_is_rejected() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await websocket_router()({"type": "websocket", "path": "/v1/other"}, None, send)

    assert sent == [{"type": "websocket.close"}]

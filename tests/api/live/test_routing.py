"""Which ASGI application serves an address: the live path, the WebSocket consumer or Django."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest

from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.routing import LIVE_ROUTES, LiveRoute, http_router, websocket_router

EMPTY_BODY = {"type": "http.request", "body": b"", "more_body": False}


async def django(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"django"})


async def echo(path: str, http_request: LiveHttpRequest, response: LiveHttpResponse, **parameters: str) -> None:
    await response.send(200, [], " ".join((path, *parameters.values())).encode())


async def served_by(method: str, path: str, root_path: str = "", routes: Sequence[LiveRoute] = LIVE_ROUTES) -> str:
    """Return the path of the route that serves a request and its parameters, or `django`."""
    router = http_router(django, [replace(route, handler=partial(echo, route.path)) for route in routes])
    sent: list[Any] = []

    async def receive() -> Any:
        return EMPTY_BODY

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": []}
    await router(scope, receive, send)
    return str(sent[-1]["body"].decode())


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/chat/completions", "v1/chat/completions"),
        ("GET", "/v1/chat/completions", "django"),
        ("POST", "/v1/chat/completions/", "django"),
        ("POST", "//v1/chat/completions", "django"),
        ("POST", "///v1/chat/completions", "django"),
        ("POST", "v1/chat/completions", "django"),
        ("POST", "/v1/chat/completions\n", "django"),
        ("GET", "/v1/models/org/model", r"^v1/models/(?P<name>.{1,200})\Z org/model"),
        ("GET", "/v1/streams/stm_1/events", r"^v1/streams/(?P<stream_id>[^/]{1,64})/events\Z stm_1"),
        ("DELETE", "/v1/streams/stm_1", r"^v1/streams/(?P<stream_id>[^/]{1,64})\Z stm_1"),
        ("GET", "/v1/models/gpt-4o\n", "django"),
        ("GET", "/v1/streams/stm_1/events\n", "django"),
        ("GET", "/v1/jobs", "django"),
        ("GET", "/readyz", "django"),
        ("GET", "/", "django"),
    ],
)
async def test_an_address_is_served_by_its_route_or_by_django(method: str, path: str, route: str) -> None:
    assert await served_by(method, path) == route


@pytest.mark.parametrize("root_path", ["/zzz", "/v1"])
@pytest.mark.parametrize(("path", "route"), [("/v1/streams", "v1/streams"), ("/v1/jobs", "django"), ("/x", "django")])
async def test_a_root_path_that_the_client_sent_does_not_affect_routing(root_path: str, path: str, route: str) -> None:
    assert await served_by("POST", path, root_path) == route


async def test_two_routes_may_match_one_path_with_different_methods() -> None:
    post, delete = LiveRoute("POST", "v1/streams", echo), LiveRoute("DELETE", r"^v1/(?P<name>streams)\Z", echo)

    for routes in ((post, delete), (delete, post)):
        assert await served_by("POST", "/v1/streams", routes=routes) == post.path
        assert await served_by("DELETE", "/v1/streams", routes=routes) == f"{delete.path} streams"
        assert await served_by("GET", "/v1/streams", routes=routes) == "django"


@pytest.mark.parametrize("path", ["//readyz", "///readyz", "readyz"])
async def test_readiness_of_another_address_is_left_to_django(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.routing.is_draining", lambda: True)

    assert await served_by("GET", path) == "django"
    assert "shut" in await served_by("GET", "/readyz")


@pytest.mark.parametrize("path", ["/v1/other", "//v1/ws", "///v1/ws", "v1/ws", "/v1/ws\n"])
@pytest.mark.parametrize("root_path", ["", "/zzz"])
async def test_a_websocket_to_another_address_is_rejected(path: str, root_path: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await websocket_router()({"type": "websocket", "path": path, "root_path": root_path}, AsyncMock(), send)

    assert sent == [{"type": "websocket.close"}]

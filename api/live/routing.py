"""The addresses of the live path, as Channels routes them; everything else goes to Django.

HTTP requests pass Channels' URLRouter, too. Measured over the whole ASGI application with a handler that does nothing,
it costs 2 µs of processor time for a chat completion and 5 µs for what falls through to Django, of about a millisecond
that a request takes; a dictionary by method and path took 0.5 to 1 µs.

An address is matched exactly: an additional slash at its start, or a newline at its end, makes another address.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from channels.routing import URLRouter
from django.conf import settings
from django.urls import Resolver404, path, re_path

from api.asgi_types import ASGIApp, ASGIReceive, ASGIScope, ASGISend
from api.errors import ApiError
from api.live import job_events, model_endpoints, stream_endpoints, wire_formats
from api.live.http_handler import LiveHttpHandler, LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.infer import InferenceEndpoint, create_stream
from api.live.metrics import send_metrics
from api.live.respond import ResponseContext, send_error
from api.live.websocket.consumer import WebSocketConsumer
from api.live.wire_formats import WireFormat
from live.errors import ShuttingDown
from live.runtime import is_draining
from tenants.access import TokenScope

#: Is called with the parameters of the path as keywords.
ParameterHandler: TypeAlias = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LiveRoute:
    """One address of the live path."""

    method: str
    #: Without the first slash, as Django writes them; a regular expression if it has parameters.
    path: str
    handler: ParameterHandler
    #: The setting with the size that a body may have.
    body_limit: Literal["MAX_LIVE_BODY_BYTES", "MAX_BODY_BYTES"] = "MAX_BODY_BYTES"

    @property
    def has_parameters(self) -> bool:
        return "(?P<" in self.path


def _infer(address: str, endpoint: InferenceEndpoint) -> LiveRoute:
    return LiveRoute("POST", address, endpoint, "MAX_LIVE_BODY_BYTES")


#: The most frequent ones first: the router tries them in this order.
LIVE_ROUTES = (
    _infer(
        "v1/chat/completions",
        InferenceEndpoint("chat_completions", WireFormat.OPENAI, TokenScope.CHAT_WRITE, wire_formats.parse_chat),
    ),
    _infer(
        "v1/messages",
        InferenceEndpoint("messages", WireFormat.ANTHROPIC, TokenScope.CHAT_WRITE, wire_formats.parse_messages),
    ),
    _infer(
        "v1/embeddings",
        InferenceEndpoint("embeddings", WireFormat.OPENAI, TokenScope.EMBEDDINGS_WRITE, wire_formats.parse_embeddings),
    ),
    _infer(
        "v1/chat",
        InferenceEndpoint("chat", WireFormat.WORDPRESS, TokenScope.CHAT_WRITE, wire_formats.parse_wordpress),
    ),
    _infer(
        "api/v1/chat",
        InferenceEndpoint("envelope", WireFormat.ENVELOPE, TokenScope.CHAT_WRITE, wire_formats.parse_envelope),
    ),
    LiveRoute("POST", "v1/streams", create_stream, "MAX_LIVE_BODY_BYTES"),
    LiveRoute("GET", r"^v1/streams/(?P<stream_id>[^/]{1,64})/events\Z", stream_endpoints.read_stream),
    LiveRoute("GET", r"^v1/jobs/(?P<job_id>[^/]{1,64})/events\Z", job_events.read_job),
    LiveRoute("DELETE", r"^v1/streams/(?P<stream_id>[^/]{1,64})\Z", stream_endpoints.cancel_stream),
    LiveRoute("POST", "v1/messages/count_tokens", model_endpoints.count_tokens, "MAX_LIVE_BODY_BYTES"),
    LiveRoute("GET", "v1/models", model_endpoints.list_models),
    LiveRoute("GET", r"^v1/models/(?P<name>.{1,200})\Z", model_endpoints.get_model),
    LiveRoute("GET", "metrics", send_metrics),
)


class LiveView:
    """Serves one route of the live path. For another method, the router tries the next route, and at last Django."""

    def __init__(self, route: LiveRoute) -> None:
        self._route = route

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if scope["method"] != self._route.method:
            raise Resolver404
        parameters = scope["url_route"]["kwargs"]
        handler = partial(self._route.handler, **parameters) if parameters else self._route.handler
        limit = int(getattr(settings, self._route.body_limit))
        await LiveHttpHandler(handler, _reject_body, limit)(scope, receive, send)


class ReadinessView:
    """`/readyz`: not ready while this process shuts down, so that the load balancer sends it nothing more."""

    def __init__(self, django: ASGIApp) -> None:
        self._django = django

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if is_draining():
            await LiveHttpHandler(_send_shutting_down, _reject_body, 0)(scope, receive, send)
        else:
            await self._django(scope, receive, send)


async def _send_shutting_down(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    await send_error(ResponseContext(http_request, "readyz"), response, ShuttingDown())


async def _reject_body(http_request: LiveHttpRequest, response: LiveHttpResponse, error: ApiError) -> None:
    wire = WireFormat.ANTHROPIC if http_request.path.startswith("/v1/messages") else WireFormat.OPENAI
    await send_error(ResponseContext(http_request, "rejected", wire), response, error)


class ExactPathRouter:
    """Channels' URLRouter, matching exact paths only. A request that no route serves goes to `fallback`."""

    def __init__(self, routes: Sequence[Any], fallback: ASGIApp) -> None:
        self._urls = URLRouter([*routes, re_path("", _as_view(fallback))])
        self._fallback = fallback

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        address = scope["path"]
        # Channels strips every leading slash; `//v1/chat` is another, unknown address.
        if address.startswith("//") or not address.startswith("/"):
            await self._fallback(scope, receive, send)
        else:
            # As in a nested router, because the outermost one raises ValueError if the path does not start with
            # `root_path`, which Daphne takes from a header of the client (`Daphne-Root-Path`).
            await self._urls({**scope, "path_remaining": address}, receive, send)


def http_router(django: ASGIApp, routes: Sequence[LiveRoute] = LIVE_ROUTES) -> ExactPathRouter:
    """Return the router of HTTP requests. What is not live falls through to Django."""
    live: list[Any] = [(route, LiveView(route)) for route in routes]
    return ExactPathRouter(
        [
            *((re_path if route.has_parameters else path)(route.path, view) for route, view in live),
            path("readyz", _as_view(ReadinessView(django))),
        ],
        django,
    )


def websocket_router() -> ExactPathRouter:
    """Return the router of WebSockets. A handshake to another address is rejected."""
    return ExactPathRouter([path("v1/ws", WebSocketConsumer.as_asgi())], _reject_handshake)


async def _reject_handshake(scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
    await send({"type": "websocket.close"})


def _as_view(app: ASGIApp) -> Any:
    """Return an ASGI app, typed as what `django.urls` expects."""
    return app

"""What comes first at the server: live requests and WebSockets to their consumers, everything else to Django."""

from api.asgi_types import ASGIApp, ASGIReceive, ASGIScope, ASGISend
from api.errors import ApiError
from api.live import routes
from api.live.http_handler import LiveHttpHandler, LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.respond import ResponseContext, send_error
from api.live.websocket.consumer import PATH, WebSocketConsumer
from api.live.wire_formats import WireFormat
from live.errors import ShuttingDown
from live.runtime import close_live_runtime, is_draining, live_runtime


class LiveDispatcher:
    """Looks at an address once."""

    def __init__(self, django: ASGIApp) -> None:
        self._django = django

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        match scope["type"]:
            case "lifespan":
                await _handle_lifespan(receive, send)
            case "http":
                await self._handle_http(scope, receive, send)
            case "websocket" if scope["path"] == PATH:
                await WebSocketConsumer()(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close"})
            case _:
                await self._django(scope, receive, send)

    async def _handle_http(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        method, path = scope["method"], scope["path"]
        if (handler := routes.find_handler(method, path)) is not None:
            await LiveHttpHandler(handler, _reject_body, routes.max_body_bytes(path))(scope, receive, send)
        elif path == "/readyz" and is_draining():
            await LiveHttpHandler(_respond_not_ready, _reject_body, 0)(scope, receive, send)
        else:
            await self._django(scope, receive, send)


async def _respond_not_ready(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    await send_error(ResponseContext(http_request, "readyz"), response, ShuttingDown())


async def _reject_body(http_request: LiveHttpRequest, response: LiveHttpResponse, why: ApiError) -> None:
    wire = WireFormat.ANTHROPIC if http_request.path.startswith("/v1/messages") else WireFormat.OPENAI
    # The rest of the body is not read, so the connection cannot carry another request.
    context = ResponseContext(http_request, "rejected", wire)
    await send_error(context, response, why)


async def _handle_lifespan(receive: ASGIReceive, send: ASGISend) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await live_runtime(server_waits=True)
            await send({"type": "lifespan.startup.complete"})
        else:
            await close_live_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return

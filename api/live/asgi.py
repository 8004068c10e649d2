"""The ASGI application: live requests and WebSockets go to their handlers, everything else to Django."""

from channels.routing import ProtocolTypeRouter

from api.asgi_types import ASGIApp, ASGIReceive, ASGIScope, ASGISend
from api.live.routing import http_router, websocket_router
from live.runtime import close_live_runtime, live_runtime


def asgi_application(django: ASGIApp) -> ProtocolTypeRouter:
    """Return what the server serves, around this Django application."""
    return ProtocolTypeRouter(
        {
            "http": http_router(django),
            "websocket": websocket_router(),
            "lifespan": handle_lifespan,
        }
    )


async def handle_lifespan(scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
    """Open the live runtime when the server starts, and close it gracefully before the server exits."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await live_runtime(server_waits=True)
            await send({"type": "lifespan.startup.complete"})
        else:
            await close_live_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return

"""What comes first at the server: live requests to their consumers, everything else to Django."""

import asyncio
import signal
import threading
from types import FrameType
from typing import Any

import structlog

from api.body_limit import App, Receive, Scope, Send
from api.errors import TooLarge
from api.live import routes
from api.live.answer import Course, send_error
from api.live.asked import Asked
from api.live.consumer import LiveConsumer, Reply
from api.live.desk import close_live_desk, live_desk
from api.live.edges import Wire

log = structlog.get_logger(__name__)


class Gate:
    """Looks at an address once."""

    def __init__(self, django: App) -> None:
        self._django = django

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await _live_as_long_as_the_server(receive, send)
            case "http":
                await self._answer(scope, receive, send)
            case _:
                await self._django(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (handler := routes.find(method, path)) is not None:
            await LiveConsumer(handler, _refuse_length, routes.limit_of(path))(scope, receive, send)
        else:
            await self._django(scope, receive, send)


async def _refuse_length(asked: Asked, reply: Reply, limit: int) -> None:
    wire = Wire.ANTHROPIC if asked.path.startswith("/v1/messages") else Wire.OPENAI
    # The rest of the body is not read, so the connection cannot carry another request.
    course = Course(asked, "refused", wire, extra=[(b"connection", b"close")])
    await send_error(course, reply, TooLarge(f"The body is larger than {limit:,} bytes."))


async def _live_as_long_as_the_server(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await live_desk()
            drain_at_the_signal()
            await send({"type": "lifespan.startup.complete"})
        else:
            await close_live_desk()
            await send({"type": "lifespan.shutdown.complete"})
            return


def drain_at_the_signal() -> None:
    """Begin to drain when the server is told to stop, not only when its last connection has ended."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(lambda: loop.create_task(_begin_to_drain()))
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, drain)


async def _begin_to_drain() -> Any:
    desk = await live_desk()
    desk.draining.set()
    log.info("live_draining", streams=len(desk.streams))
    await desk.drain()

"""What comes first at the server: live requests and WebSockets to their consumers, everything else to Django."""

from api.body_limit import App, Receive, Scope, Send
from api.errors import ApiError, Draining
from api.live import routes
from api.live.answer import Course, send_error
from api.live.asked import Asked
from api.live.desk import close_live_desk, is_draining, live_desk
from api.live.edges import Wire
from api.live.request import LiveRequest, Reply
from api.live.socket import PATH, SocketConsumer


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
            case "websocket" if scope["path"] == PATH:
                await SocketConsumer()(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close"})
            case _:
                await self._django(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (handler := routes.find(method, path)) is not None:
            await LiveRequest(handler, _refuse_body, routes.limit_of(path))(scope, receive, send)
        elif path == "/readyz" and is_draining():
            await LiveRequest(_not_ready, _refuse_body, 0)(scope, receive, send)
        else:
            await self._django(scope, receive, send)


async def _not_ready(asked: Asked, reply: Reply) -> None:
    await send_error(Course(asked, "readyz"), reply, Draining())


async def _refuse_body(asked: Asked, reply: Reply, why: ApiError) -> None:
    wire = Wire.ANTHROPIC if asked.path.startswith("/v1/messages") else Wire.OPENAI
    # The rest of the body is not read, so the connection cannot carry another request.
    course = Course(asked, "refused", wire, extra=[(b"connection", b"close")])
    await send_error(course, reply, why)


async def _live_as_long_as_the_server(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await live_desk(server_waits=True)
            await send({"type": "lifespan.startup.complete"})
        else:
            await close_live_desk()
            await send({"type": "lifespan.shutdown.complete"})
            return

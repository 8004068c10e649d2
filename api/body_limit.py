"""The size of bodies, watched where they come in, before Django would store them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from django.conf import settings
from django.http import HttpRequest

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CUT_OFF = "nightdesk.body_cut_off"


class BodyLimit:
    """Cut off a body that is larger than MAX_BODY_BYTES, announced or not, and say so in the scope.

    The application then sees an empty body and answers (`is_cut_off`); what is left of the body is never read.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = limited(scope, receive, settings.MAX_BODY_BYTES)
        await self._app(scope, receive, send)


def limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return a `receive` that ends the body once more than `limit` bytes of it came or were announced."""
    seen, ended = 0, False
    scope[CUT_OFF] = _announced(scope) > limit

    async def receive_limited() -> Message:
        nonlocal seen, ended
        if ended:
            # Whoever listens on waits for the client to go away. Reading on to find out would read the endless body.
            await asyncio.get_running_loop().create_future()
        if not scope[CUT_OFF]:
            message = await receive()
            seen += len(message.get("body", b""))
            if seen <= limit:
                return message
        scope[CUT_OFF] = ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_limited


def _announced(scope: Scope) -> int:
    """Return the Content-Length; 0 where there is none to be read (the bytes are counted all the same)."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0


def is_cut_off(request: HttpRequest) -> bool:
    """Was the body larger than the limit?"""
    return bool(getattr(request, "scope", {}).get(CUT_OFF))

"""The size of bodies, watched where they come in, before Django would store them."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from django.conf import settings
from django.http import HttpRequest

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Longer ones are no lengths, and nothing to be reckoned with.
LENGTH_FORM = re.compile(rb"[0-9]{1,20}")
CUT_OFF = "nightdesk.body_cut_off"

#: Where a body may be larger than MAX_BODY_BYTES, and the setting that says how large.
ROOMY: Mapping[tuple[str, str], str] = {
    ("POST", "/v1/batches"): "MAX_BATCH_BODY_BYTES",
    ("POST", "/v1/files"): "MAX_UPLOAD_BYTES",
}


class BodyLimit:
    """Cut off a body that is larger than its address allows, announced or not, and say so in the scope.

    The application then sees an empty body and answers (`is_cut_off`); what is left of the body is never read.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = limited(scope, receive, limit_of(scope["method"], scope["path"]))
        await self._app(scope, receive, send)


def limit_of(method: str, path: str) -> int:
    """Return how many bytes a body may have that comes in at this address."""
    limit: int = getattr(settings, ROOMY.get((method, path), "MAX_BODY_BYTES"))
    return limit


def limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return a `receive` that ends the body once more than `limit` bytes of it came or were announced."""
    seen, ended = 0, False
    scope[CUT_OFF] = (announced_length(scope) or 0) > limit

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


def announced_length(scope: Scope) -> int | None:
    """Return the Content-Length; None where there is none to be read (the bytes are counted all the same)."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and LENGTH_FORM.fullmatch(value):
            return int(value)
    return None


def is_cut_off(request: HttpRequest) -> bool:
    """Was the body larger than the limit? Another server than ASGI's tells by the length that was announced."""
    announced = str(request.META.get("CONTENT_LENGTH") or "")
    too_long = announced.isdigit() and int(announced) > limit_of(request.method or "", request.path)
    return too_long or bool(getattr(request, "scope", {}).get(CUT_OFF))

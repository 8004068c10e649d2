"""The size of bodies, watched where they come in, before Django would store them."""

import asyncio
import re
from collections.abc import Mapping

from django.conf import settings
from django.http import HttpRequest

from api.asgi_types import ASGIApp, ASGIMessage, ASGIReceive, ASGIScope, ASGISend

#: Longer ones are no lengths, and nothing to be reckoned with.
CONTENT_LENGTH_PATTERN = re.compile(rb"[0-9]{1,20}")
BODY_TOO_LARGE = "nightdesk.body_too_large"

#: Where a body may be larger than MAX_BODY_BYTES, and the setting that says how large.
LARGE_BODY_SETTINGS: Mapping[tuple[str, str], str] = {
    ("POST", "/v1/batches"): "MAX_BATCH_BODY_BYTES",
    ("POST", "/v1/files"): "MAX_UPLOAD_BYTES",
}


class BodyLimitMiddleware:
    """Cut off a body that is larger than its address allows, announced or not, and say so in the scope.

    The application then sees an empty body and answers (`exceeds_body_limit`); what is left of the body is never read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if scope["type"] == "http":
            receive = with_body_limit(scope, receive, body_limit_for(scope["method"], scope["path"]))
        await self._app(scope, receive, send)


def body_limit_for(method: str, path: str) -> int:
    """Return how many bytes a body may have that comes in at this address."""
    limit: int = getattr(settings, LARGE_BODY_SETTINGS.get((method, path), "MAX_BODY_BYTES"))
    return limit


def with_body_limit(scope: ASGIScope, receive: ASGIReceive, limit: int) -> ASGIReceive:
    """Return a `receive` that ends the body once more than `limit` bytes of it came or were announced."""
    seen, ended = 0, False
    scope[BODY_TOO_LARGE] = (content_length(scope) or 0) > limit

    async def receive_limited() -> ASGIMessage:
        nonlocal seen, ended
        if ended:
            # Whoever listens on waits for the client to go away. Reading on to find out would read the endless body.
            await asyncio.get_running_loop().create_future()
        if not scope[BODY_TOO_LARGE]:
            message = await receive()
            seen += len(message.get("body", b""))
            if seen <= limit:
                return message
        scope[BODY_TOO_LARGE] = ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_limited


def content_length(scope: ASGIScope) -> int | None:
    """Return the Content-Length; None where there is none to be read (the bytes are counted all the same)."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and CONTENT_LENGTH_PATTERN.fullmatch(value):
            return int(value)
    return None


def exceeds_body_limit(request: HttpRequest) -> bool:
    """Was the body larger than the limit? Another server than ASGI's tells by the length that was announced."""
    announced = str(request.META.get("CONTENT_LENGTH") or "")
    too_long = announced.isdigit() and int(announced) > body_limit_for(request.method or "", request.path)
    return too_long or bool(getattr(request, "scope", {}).get(BODY_TOO_LARGE))

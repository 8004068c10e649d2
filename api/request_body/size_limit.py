"""Size limits of request bodies: ASGI middleware that ends a body beyond the limit of its path."""

import asyncio
import re
from collections.abc import Mapping

from django.conf import settings
from django.http import HttpRequest

from api.asgi_types import ASGIApp, ASGIMessage, ASGIReceive, ASGIScope, ASGISend

#: Longer numbers are not plausible lengths and are ignored.
CONTENT_LENGTH_PATTERN = re.compile(rb"[0-9]{1,20}")
BODY_TOO_LARGE = "nightdesk.body_too_large"

#: Requests whose body may exceed MAX_BODY_BYTES, and the setting of their limit.
LARGE_BODY_SETTINGS: Mapping[tuple[str, str], str] = {
    ("POST", "/v1/batches"): "MAX_BATCH_BODY_BYTES",
    ("POST", "/v1/files"): "MAX_UPLOAD_BYTES",
}


class BodyLimitMiddleware:
    """Ends a body that exceeds the limit of its path, by Content-Length or by received bytes, and marks the scope.

    The application then sees an empty body and responds (`exceeds_body_limit`). The rest of the body is never read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if scope["type"] == "http":
            receive = with_body_limit(scope, receive, body_limit_for(scope["method"], scope["path"]))
        await self._app(scope, receive, send)


def body_limit_for(method: str, path: str) -> int:
    """Return the maximum size of a body of this request, in bytes."""
    limit: int = getattr(settings, LARGE_BODY_SETTINGS.get((method, path), "MAX_BODY_BYTES"))
    return limit


def with_body_limit(scope: ASGIScope, receive: ASGIReceive, limit: int) -> ASGIReceive:
    """Return a `receive` that ends the body once its Content-Length or the received bytes exceed `limit`."""
    received, ended = 0, False
    scope[BODY_TOO_LARGE] = (content_length(scope) or 0) > limit

    async def receive_limited() -> ASGIMessage:
        nonlocal received, ended
        if ended:
            # The caller now waits for a disconnect. Detecting one would mean to read the rest of the body.
            await asyncio.get_running_loop().create_future()
        if not scope[BODY_TOO_LARGE]:
            message = await receive()
            received += len(message.get("body", b""))
            if received <= limit:
                return message
        scope[BODY_TOO_LARGE] = ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_limited


def content_length(scope: ASGIScope) -> int | None:
    """Return the Content-Length; None if it is missing or malformed (received bytes are counted in any case)."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and CONTENT_LENGTH_PATTERN.fullmatch(value):
            return int(value)
    return None


def exceeds_body_limit(request: HttpRequest) -> bool:
    """Say whether the body exceeded the limit. Without ASGI (WSGI, tests) the Content-Length decides."""
    declared = str(request.META.get("CONTENT_LENGTH") or "")
    too_long = declared.isdigit() and int(declared) > body_limit_for(request.method or "", request.path)
    return too_long or bool(getattr(request, "scope", {}).get(BODY_TOO_LARGE))

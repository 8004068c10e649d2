"""The ASGI application of REST and the admin: Django, with each request in one thread of a bounded pool.

A small request runs through Django once. A request with a large body runs **twice** (`request_body.preauthentication`):

    headers ──▶ first pass: middleware and view, without the body ──▶ error? send it, the body is never read
                     │ the view answers 204 (`is_preauthentication_pass`)
                     ▼
    body ──▶ read into a spooled file ──▶ second pass: middleware and view, with the body ──▶ response
"""

import os
import string
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any
from urllib.parse import quote_from_bytes

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from api.asgi_types import ASGIApp, ASGIReceive, ASGIScope, ASGISend
from api.request_body.preauthentication import (
    PREAUTHENTICATED,
    PREAUTHENTICATION_PASS,
    is_upload,
    needs_preauthentication,
    preauthenticated_identity,
)
from api.request_body.reader import RESERVATION, BodyReservation, UnverifiedBodyBudget, read_body, unread_reason
from api.request_body.size_limit import BodyLimitMiddleware, exceeds_body_limit
from api.streaming_response import iterate_in_threads
from api.sync_handler import SyncHandler
from core.database_threads import DatabaseThreadPool

#: Served on the event loop itself: liveness must not depend on a free thread or on Postgres.
EVENT_LOOP_PATHS = ("/healthz",)


class DjangoApp(SyncHandler):
    """Runs requests in threads that have a database connection, and preauthenticates requests with a large body."""

    def __init__(self, threads: DatabaseThreadPool, slow: DatabaseThreadPool) -> None:
        """`slow` serves large bodies and streamed responses, so that they cannot occupy all of `threads`."""
        super().__init__()
        self._threads = threads
        self._slow = slow
        self._unverified_bodies = UnverifiedBodyBudget()

    async def handle(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if not needs_preauthentication(scope):
            await super().handle(scope, receive, send)
        elif await self._preauthenticate(scope, send):
            reservation = BodyReservation(self._unverified_bodies)
            scope[RESERVATION] = None if scope[PREAUTHENTICATED] else reservation
            try:
                await super().handle(scope, receive, send)
            finally:
                reservation.release()

    async def _preauthenticate(self, scope: ASGIScope, send: ASGISend) -> bool:
        """Run the first pass: the request through Django without its body. Return whether to read the body.

        If the response is an error, it is sent, and the body is never read.
        """
        request, _ = self.create_request({**scope, PREAUTHENTICATION_PASS: True}, BytesIO())
        if request is None:
            return True
        response = await self._threads.run(self.get_response, request)
        scope[PREAUTHENTICATED] = preauthenticated_identity(request)
        if response.status_code < 400:
            return True
        await self.send_response(response, send)
        return False

    async def read_body_of(self, scope: ASGIScope, receive: ASGIReceive) -> IO[bytes]:
        return await read_body(scope, receive)

    def create_request(
        self, scope: Mapping[str, Any], body_file: IO[bytes]
    ) -> tuple[ASGIRequest, None] | tuple[None, HttpResponseBase]:
        # Invalid bytes in a query are percent-encoded; Django would reject them with its own error page.
        query = quote_from_bytes(scope["query_string"], safe=string.printable)
        readable = {**scope, "query_string": query.encode()}
        try:
            created = super().create_request(readable, body_file)
        except ValueError:
            # Django cannot parse the Content-Type. Without one the view responds with the types it accepts.
            created = super().create_request({**readable, "headers": _without_content_type(scope)}, body_file)
        if created[0] is not None:
            _load_body(created[0], body_file)
        return created

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        if request.path in EVENT_LOOP_PATHS:
            return self.get_response(request)
        threads = self._slow if _is_large(request) else self._threads
        return await threads.run(self.get_response, request)

    async def send_response(self, response: HttpResponseBase, send: ASGISend) -> None:
        if isinstance(response, StreamingHttpResponse) and not response.is_async:
            response.streaming_content = iterate_in_threads(self._slow, iter(response))
        await super().send_response(response, send)


def _without_content_type(scope: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]


def _load_body(request: ASGIRequest, body_file: IO[bytes]) -> None:
    """Load a small body into memory, because the file may be closed while a thread uses the request.

    A large body stays in its file until a thread of the small `slow` pool reads it, so few are in memory concurrently.
    """
    # Use the received length: a chunked body has no Content-Length, which DRF treats as no body at all.
    request.META["CONTENT_LENGTH"] = str(body_file.seek(0, os.SEEK_END))
    body_file.seek(0)
    if request.encoding is not None:
        # Django would decode the query with the charset of the Content-Type, which may not even be a text encoding.
        request.encoding = "utf-8"
    if not exceeds_body_limit(request) and not unread_reason(request) and not _is_large(request):
        len(request.body)


def _is_large(request: HttpRequest) -> bool:
    return is_upload(request.method, request.path) or int(request.META["CONTENT_LENGTH"]) > settings.MAX_BODY_BYTES


def get_application() -> ASGIApp:
    # Together as many threads as database connections, so that no thread waits for a connection.
    slow = settings.DATABASE_POOL_SIZE // 4
    return BodyLimitMiddleware(
        DjangoApp(DatabaseThreadPool("web", settings.DATABASE_POOL_SIZE - slow), slow=DatabaseThreadPool("slow", slow))
    )

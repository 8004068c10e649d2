"""Django as the web server sees it: each request's synchronous way runs in one thread out of a few."""

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

#: Answered on the event loop itself: it touches nothing, and is alive as long as the loop is.
EVENT_LOOP_PATHS = ("/healthz",)


class DjangoApp(SyncHandler):
    """Gives each request a thread with a database connection, and an opinion before a long body is read."""

    def __init__(self, threads: DatabaseThreadPool, slow: DatabaseThreadPool) -> None:
        """`slow` are for what takes its time, so that it leaves the others to everybody else."""
        super().__init__()
        self._threads = threads
        self._slow = slow
        self._unverified_bodies = UnverifiedBodyBudget()

    async def handle(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        if not needs_preauthentication(scope):
            await super().handle(scope, receive, send)
        elif await self._preauthenticate(scope, send):
            share = BodyReservation(self._unverified_bodies)
            scope[RESERVATION] = None if scope[PREAUTHENTICATED] else share
            try:
                await super().handle(scope, receive, send)
            finally:
                share.release()

    async def _preauthenticate(self, scope: ASGIScope, send: ASGISend) -> bool:
        """Ask the view for its opinion on the headers alone, and send it if it is a refusal."""
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
        # Bytes that a query should not hold are written as %XX, for Django would answer them in its own words.
        query = quote_from_bytes(scope["query_string"], safe=string.printable)
        readable = {**scope, "query_string": query.encode()}
        try:
            found = super().create_request(readable, body_file)
        except ValueError:
            # The type is nonsense that Django will not even read. Without one the view says what it wants.
            found = super().create_request({**readable, "headers": _without_content_type(scope)}, body_file)
        if found[0] is not None:
            _load_body(found[0], body_file)
        return found

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
    """Hold the body in memory: the file may be closed under the thread. It is small (`BodyLimitMiddleware`).

    A long one stays where it is until a thread takes it: of these there are few, so it is not held many times at once.
    """
    # The length that came is the truth: a chunked body announces none, which DRF takes for no body at all.
    request.META["CONTENT_LENGTH"] = str(body_file.seek(0, os.SEEK_END))
    body_file.seek(0)
    if request.encoding is not None:
        # What a body's type names would also be how the query is read; and not all of them are encodings of text.
        request.encoding = "utf-8"
    if not exceeds_body_limit(request) and not unread_reason(request) and not _is_large(request):
        len(request.body)


def _is_large(request: HttpRequest) -> bool:
    return is_upload(request.method, request.path) or int(request.META["CONTENT_LENGTH"]) > settings.MAX_BODY_BYTES


def get_application() -> ASGIApp:
    # Together as many as there are connections, so that no thread waits for one.
    slow = settings.DATABASE_POOL_SIZE // 4
    return BodyLimitMiddleware(
        DjangoApp(DatabaseThreadPool("web", settings.DATABASE_POOL_SIZE - slow), slow=DatabaseThreadPool("slow", slow))
    )

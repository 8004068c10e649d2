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

from api.announced import ANNOUNCED, PROVEN, is_asked_first, is_upload, proven_before
from api.body_limit import App, BodyLimit, Receive, Scope, Send, is_cut_off
from api.handler import SyncHandler
from api.reading import SHARE, Room, Share, read_body, unread
from api.streaming import pull
from core.threads import DatabaseThreads

#: Answered on the event loop itself: it touches nothing, and is alive as long as the loop is.
WITHOUT_THREAD = ("/healthz",)


class Desk(SyncHandler):
    """Gives each request a thread with a database connection, and an opinion before a long body is read."""

    def __init__(self, threads: DatabaseThreads, slow: DatabaseThreads) -> None:
        """`slow` are for what takes its time, so that it leaves the others to everybody else."""
        super().__init__()
        self._threads = threads
        self._slow = slow
        self._unproven = Room()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_asked_first(scope):
            await super().handle(scope, receive, send)
        elif await self._is_welcome(scope, send):
            share = Share(self._unproven)
            scope[SHARE] = None if scope[PROVEN] else share
            try:
                await super().handle(scope, receive, send)
            finally:
                share.give_back()

    async def _is_welcome(self, scope: Scope, send: Send) -> bool:
        """Ask the view for its opinion on the headers alone, and send it if it is a refusal."""
        request, _ = self.create_request({**scope, ANNOUNCED: True}, BytesIO())
        if request is None:
            return True
        response = await self._threads.run(self.get_response, request)
        scope[PROVEN] = proven_before(request)
        if response.status_code < 400:
            return True
        await self.send_response(response, send)
        return False

    async def read_body_of(self, scope: Scope, receive: Receive) -> IO[bytes]:
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
            found = super().create_request({**readable, "headers": _without_type(scope)}, body_file)
        if found[0] is not None:
            _take_in(found[0], body_file)
        return found

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        if request.path in WITHOUT_THREAD:
            return self.get_response(request)
        threads = self._slow if _is_long(request) else self._threads
        return await threads.run(self.get_response, request)

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        if isinstance(response, StreamingHttpResponse) and not response.is_async:
            response.streaming_content = pull(self._slow, iter(response))
        await super().send_response(response, send)


def _without_type(scope: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]


def _take_in(request: ASGIRequest, body_file: IO[bytes]) -> None:
    """Hold the body in memory: the file may be closed under the thread. It is small (`BodyLimit`).

    A long one stays where it is until a thread takes it: of these there are few, so it is not held many times at once.
    """
    # The length that came is the truth: a chunked body announces none, which DRF takes for no body at all.
    request.META["CONTENT_LENGTH"] = str(body_file.seek(0, os.SEEK_END))
    body_file.seek(0)
    if request.encoding is not None:
        # What a body's type names would also be how the query is read; and not all of them are encodings of text.
        request.encoding = "utf-8"
    if not is_cut_off(request) and not unread(request) and not _is_long(request):
        len(request.body)


def _is_long(request: HttpRequest) -> bool:
    return is_upload(request.method, request.path) or int(request.META["CONTENT_LENGTH"]) > settings.MAX_BODY_BYTES


def get_application() -> App:
    # Together as many as there are connections, so that no thread waits for one.
    slow = settings.DATABASE_POOL_SIZE // 4
    return BodyLimit(
        Desk(DatabaseThreads("web", settings.DATABASE_POOL_SIZE - slow), slow=DatabaseThreads("slow", slow))
    )

"""Serves one HTTP request of the live path: reads the body, calls the handler, cancels it if the client disconnects.

Bare ASGI, because a Channels consumer creates two tasks for each request and waits in a third (decision 20).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import structlog

from api.errors import ApiError, BodyTimeout, BodyTooLarge
from api.live.http_request import LiveHttpRequest, request_from_scope
from api.request_body.reader import with_read_timeout
from api.request_body.size_limit import content_length

AsgiMessage: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = list[tuple[bytes, bytes]]

log = structlog.get_logger(__name__)

#: Most responses are complete before it would be useful to detect a disconnect.
WATCH_AFTER_SECONDS = 0.05


class ClientDisconnected(Exception):
    """The client disconnected before the end of its request."""


class LiveHttpResponse:
    """The response to one request."""

    def __init__(self, send: Callable[[AsgiMessage], Awaitable[None]]) -> None:
        self._send = send
        self.has_started = False
        self.is_complete = False

    async def start(self, status: int, headers: Headers) -> None:
        self.has_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        if self.is_complete:
            return
        self.is_complete = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete response."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.write(body, more=False)


Handler: TypeAlias = Callable[[LiveHttpRequest, LiveHttpResponse], Awaitable[None]]
#: Sends the response instead of the handler when the body is not read to its end.
RejectHandler: TypeAlias = Callable[[LiveHttpRequest, LiveHttpResponse, ApiError], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]


class LiveHttpHandler:
    """Reads the body, then runs `handler`, and cancels it when the client disconnects."""

    def __init__(self, handler: Handler, reject: RejectHandler, limit: int) -> None:
        self._handler = handler
        self._reject = reject
        self._limit = limit

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        started_at, response = time.perf_counter(), LiveHttpResponse(send)
        try:
            body = await self._read(scope, receive)
        except (BodyTooLarge, BodyTimeout) as error:
            await self._reject(request_from_scope(scope, started_at), response, error)
        except ClientDisconnected:
            pass
        else:
            await self._handle(request_from_scope(scope, started_at, body), response, receive)

    async def _read(self, scope: Any, receive: Receive) -> bytes:
        """Return the body. Raises `BodyTooLarge`, `BodyTimeout` or `ClientDisconnected`."""
        if (content_length(scope) or 0) > self._limit:
            raise self._too_large()
        body, more, receive = bytearray(), True, with_read_timeout(scope, receive)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit:,} bytes.")

    async def _handle(self, http_request: LiveHttpRequest, response: LiveHttpResponse, receive: Receive) -> None:
        # The server made this task for this request alone, so nothing needs to be unbound.
        structlog.contextvars.bind_contextvars(request_id=http_request.request_id)
        watcher = DisconnectWatcher(receive, response)
        try:
            await self._handler(http_request, response)
        except asyncio.CancelledError:
            if not watcher.caused_cancellation():
                raise
        except Exception as error:
            if watcher.caused_cancellation():
                # The client has disconnected, so an error could not be delivered.
                return
            if not response.has_started:
                raise
            # If the response ends here, uvicorn closes the connection without the end of the body. Raising would make
            # Daphne begin a second response, fail, and then stop serving every connection.
            log.error("live_response_interrupted", path=http_request.path[:200], exc_info=error)
        finally:
            watcher.close()


class DisconnectWatcher:
    """Cancels the task that created it if the client disconnects before the response is complete."""

    def __init__(self, receive: Receive, response: LiveHttpResponse) -> None:
        self._receive = receive
        self._response = response
        self._handler_task = asyncio.current_task()
        self._caused_cancellation = False
        self._watch_task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._start)

    def caused_cancellation(self) -> bool:
        """Whether a cancellation that arrived came only from this watcher. If so, it counts as handled."""
        return self._caused_cancellation and self._handler_task is not None and self._handler_task.uncancel() == 0

    def close(self) -> None:
        self._timer.cancel()
        if self._watch_task is not None:
            self._watch_task.cancel()

    def _start(self) -> None:
        self._watch_task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._handler_task is not None and not self._response.is_complete:
            self._caused_cancellation = True
            self._handler_task.cancel()

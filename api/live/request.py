"""One HTTP request on the live path: its body read, its answer written, its client's going noticed.

Bare ASGI: a Channels consumer makes two tasks for each request, and waits in a third (decision 20).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import structlog

from api.body_limit import announced_length
from api.errors import ApiError, TooLarge, TooSlow
from api.live.asked import Asked, to_asked
from api.reading import timely

Message: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = list[tuple[bytes, bytes]]

log = structlog.get_logger(__name__)

#: Most answers are there before it would be of use to know that nobody waits for them any more.
LISTEN_AFTER_SECONDS = 0.05


class Gone(Exception):
    """The client has gone before the end of its request."""


class Reply:
    """The answer to one request."""

    def __init__(self, send: Callable[[Message], Awaitable[None]]) -> None:
        self._send = send
        self.has_begun = False
        self.is_over = False

    async def begin(self, status: int, headers: Headers) -> None:
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        if self.is_over:
            return
        self.is_over = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.write(body, more=False)


Handler: TypeAlias = Callable[[Asked, Reply], Awaitable[None]]
#: Told why the body is not read to its end; it answers instead.
Refusal: TypeAlias = Callable[[Asked, Reply, ApiError], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class LiveRequest:
    """Reads the body, then lets `handler` answer, and stops it when the client has gone."""

    def __init__(self, handler: Handler, refuse: Refusal, limit: int) -> None:
        self._handler = handler
        self._refuse = refuse
        self._limit = limit

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        started_at, reply = time.perf_counter(), Reply(send)
        try:
            body = await self._read(scope, receive)
        except (TooLarge, TooSlow) as why:
            await self._refuse(to_asked(scope, started_at), reply, why)
        except Gone:
            pass
        else:
            await self._answer(to_asked(scope, started_at, body), reply, receive)

    async def _read(self, scope: Any, receive: Receive) -> bytes:
        """Return the body. Raises `TooLarge`, `TooSlow` or `Gone`."""
        if (announced_length(scope) or 0) > self._limit:
            raise self._too_large()
        body, more, receive = bytearray(), True, timely(scope, receive)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self._limit:,} bytes.")

    async def _answer(self, asked: Asked, reply: Reply, receive: Receive) -> None:
        # The server has made this task for this request alone, so nothing need be unbound.
        structlog.contextvars.bind_contextvars(request_id=asked.request_id)
        ears = Ears(receive, reply)
        try:
            await self._handler(asked, reply)
        except asyncio.CancelledError:
            if not ears.take_back():
                raise
        except Exception as error:
            if ears.take_back():
                # Nobody is there any more to hear of it.
                return
            if not reply.has_begun:
                raise
            # Left like this uvicorn closes the connection, without the answer's end. Nothing is raised: Daphne would
            # begin a second answer, fail, and from then on look after no connection any more.
            log.error("live_broke_off", path=asked.path[:200], exc_info=error)
        finally:
            ears.close()


class Ears:
    """Cancels the task that made them when the client has gone before it has the whole answer."""

    def __init__(self, receive: Receive, reply: Reply) -> None:
        self._receive = receive
        self._reply = reply
        self._answering = asyncio.current_task()
        self._has_canceled = False
        self._listening: asyncio.Task[None] | None = None
        self._alarm = asyncio.get_running_loop().call_later(LISTEN_AFTER_SECONDS, self._begin)

    def take_back(self) -> bool:
        """Say whether a cancellation that has arrived was ours, and nobody else's; then it has done its work."""
        return self._has_canceled and self._answering is not None and self._answering.uncancel() == 0

    def close(self) -> None:
        self._alarm.cancel()
        if self._listening is not None:
            self._listening.cancel()

    def _begin(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._answering is not None and not self._reply.is_over:
            self._has_canceled = True
            self._answering.cancel()

"""One HTTP request on the live path: its body read, its answer written, its client's going noticed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import structlog
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from django.conf import settings

from api.body_limit import announced_length
from api.errors import ApiError, TooLarge, TooSlow
from api.live.asked import Asked, to_asked
from api.reading import SLOWEST_BYTES_PER_SECOND, too_slow

Message: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = list[tuple[bytes, bytes]]

log = structlog.get_logger(__name__)


class Reply:
    """The answer to one request. Nothing is sent any more once the client is gone."""

    def __init__(self, send: Callable[[Message], Awaitable[None]]) -> None:
        self._send = send
        self.has_begun = False
        self.is_over = False
        #: Set when the client has gone, or has all of the answer.
        self.gone = asyncio.Event()

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


class LiveConsumer(AsyncConsumer):  # type: ignore[misc] # Channels ships no types
    """Reads the body, then lets `handler` answer while it listens for the client's going."""

    def __init__(self, handler: Handler, refuse: Refusal, limit: int) -> None:
        self._handler = handler
        self._refuse = refuse
        self._limit = limit
        self._body = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._asked: Asked | None = None
        self._reply: Reply | None = None
        self._serving: asyncio.Task[Any] | None = None
        #: What went wrong once the answer had begun, when nothing can be said of it any more; or with the body.
        self._broken_by: Exception | None = None
        self._began_at = self._heard_at = 0.0
        self._patience: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._asked, self._reply = to_asked(scope), Reply(send)
        if (announced_length(scope) or 0) > self._limit:
            await self._refuse(self._asked, self._reply, self._too_large())
            return
        self._serving = asyncio.current_task()
        self._began_at = self._heard_at = time.monotonic()
        self._wait_for_body()
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            if self._broken_by is None or self._serving is None or self._serving.uncancel():
                raise
            if isinstance(self._broken_by, TooSlow):
                await self._refuse(self._asked, self._reply, self._broken_by)
                return
            if not self._reply.has_begun:
                raise self._broken_by from None
            # Left like this uvicorn closes the connection, without the answer's end. Nothing is raised: Daphne would
            # begin a second answer, fail, and from then on look after no connection any more.
            log.error("live_broke_off", path=self._asked.path[:200], exc_info=self._broken_by)
        finally:
            self._stop_waiting()
            await self._finish()

    async def dispatch(self, message: Message) -> None:
        # Not Channels' own: nothing here uses the ORM, whose connections it would look after in a thread each time.
        if message["type"] == "http.request":
            await self.http_request(message)
        else:
            await self.http_disconnect(message)

    async def http_request(self, message: Message) -> None:
        assert self._asked is not None
        assert self._reply is not None
        self._body += message.get("body", b"")
        self._heard_at = time.monotonic()
        if len(self._body) > self._limit:
            self._stop_waiting()
            await self._refuse(self._asked, self._reply, self._too_large())
            raise StopConsumer
        if not message.get("more_body"):
            self._stop_waiting()
            asked = replace(self._asked, body=bytes(self._body))
            self._answering = asyncio.create_task(self._answer(asked, self._reply))

    async def http_disconnect(self, _: Message) -> None:
        raise StopConsumer

    async def _answer(self, asked: Asked, reply: Reply) -> None:
        with structlog.contextvars.bound_contextvars(request_id=asked.request_id):
            try:
                await self._handler(asked, reply)
            except Exception as error:
                # Nobody else would notice: all that this waits for is that the client goes.
                if not reply.gone.is_set():
                    self._break_off(error)

    # The body

    def _wait_for_body(self) -> None:
        """Look again when the body would be too slow, as all bodies are held to it (`reading`)."""
        came, longest = len(self._body), float(settings.BODY_WAIT_SECONDS)
        due = min(self._heard_at + longest, self._began_at + longest + came / SLOWEST_BYTES_PER_SECOND)
        seconds = due - time.monotonic()
        if seconds > 0:
            self._patience = asyncio.get_running_loop().call_later(seconds, self._wait_for_body)
        else:
            self._break_off(too_slow(came))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self._limit:,} bytes.")

    # The end

    def _break_off(self, error: Exception) -> None:
        self._broken_by = error
        assert self._serving is not None
        self._serving.cancel()

    async def _finish(self) -> None:
        """Tell the handler that the client is gone, and wait for it."""
        assert self._reply is not None
        self._reply.gone.set()
        if self._answering is not None:
            if not self._reply.is_over:
                self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)

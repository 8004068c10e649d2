"""`/v1/ws`: several streams and jobs over one connection, one JSON message per frame (docs/reference/websocket.md).

connect ──▶ check Origin and subprotocol ──▶ accept ──▶ authenticate by the handshake, or by the first message
receive ──▶ handle one message of the client; an error in it is reported and ends nothing else
watch   ──▶ ping a silent client; close the connection if it does not reply, does not authenticate, or is idle
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from django.conf import settings

from api.errors import ApiProblem, BodyTooLarge, to_problem
from api.live import subprotocols
from api.live.http_request import request_from_scope
from api.live.websocket.caller import WebSocketCaller, authenticate_websocket
from api.live.websocket.messages import (
    AnyClientMessage,
    AuthMessage,
    CancelMessage,
    ClientPing,
    ClientPong,
    ErrorMessage,
    FollowMessage,
    LeaveMessage,
    ReadyMessage,
    ServerPong,
    StartMessage,
    decode_message,
    error_body,
    find_ref,
)
from api.live.websocket.sender import WebSocketClosed, WebSocketSender
from api.live.websocket.subscriptions import WebSocketSubscriptions
from core import metrics
from core.database_threads import DATABASE_UNAVAILABLE
from core.tasks import cancel_and_wait
from live.runtime import LiveRuntime, live_runtime
from providers.invalid_request import InvalidRequest
from tenants.async_authentication import is_site_origin
from tenants.errors import ConflictingCredentials, MissingCredentials

log = structlog.get_logger(__name__)

#: Enough for a credential; an unauthenticated client may not make us parse more.
MAX_AUTH_BYTES = 16_384
MIN_WATCH_SECONDS = 0.02
#: The longest reason that fits into a close frame.
MAX_REASON_BYTES = 123
#: For sending the close frame to a client that may not be reading.
CLOSE_TIMEOUT_SECONDS = 1.0
#: Autobahn, and so Daphne, lets applications close only with 1000 and 4000 to 4999.
DAPHNE_CLOSE_CODES = {1001: 4001, 1008: 4008, 1011: 4011, 1013: 4013}
CLOSE_CODES = {401: 4401, 403: 4403, 429: 4429, 503: 1013}


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection is closed (docs/reference/wire-formats.md, 17)."""

    code: int
    reason: str


SHUTTING_DOWN = CloseReason(1001, "Server shutting down. Reconnect and follow from the last seq.")
UNAUTHENTICATED = CloseReason(4401, "Authentication timeout.")
UNRESPONSIVE = CloseReason(4408, "Ping timeout. Reconnect and follow from the last seq.")
IDLE = CloseReason(4408, "Idle timeout.")


class WebSocketConsumer(AsyncConsumer):  # type: ignore[misc] # Channels ships no types
    """One connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._http_request = request_from_scope(scope, time.perf_counter())
        self._offered_protocols: list[str] = scope.get("subprotocols") or []
        self._send = send
        self._sender = WebSocketSender(send, settings.WEBSOCKET_MAX_UNREAD_BYTES)
        self._caller: WebSocketCaller | None = None
        self._subscriptions: WebSocketSubscriptions | None = None
        self._watching: asyncio.Task[None] | None = None
        self._last_message_at = time.monotonic()
        metrics.websockets_open.inc()
        try:
            with structlog.contextvars.bound_contextvars(request_id=self._http_request.request_id):
                # A task of its own, which can be canceled if the client reads nothing more, not even a close frame.
                self._serving = asyncio.create_task(super().__call__(scope, receive, send), name="socket")
            await asyncio.wait({self._serving})
            if not self._serving.cancelled():
                self._serving.result()
        finally:
            self._serving.cancel()
            metrics.websockets_open.dec()
            await self._clean_up()

    async def dispatch(self, message: Mapping[str, Any]) -> None:
        # Not Channels' own, which closes old database connections in a thread for each message: there are none here.
        match message["type"]:
            case "websocket.connect":
                await self._connect()
            case "websocket.receive":
                await self._run_step(self._receive(message.get("text")))
            case _:
                raise StopConsumer

    # The handshake

    async def _connect(self) -> None:
        self._runtime: LiveRuntime = await live_runtime()
        try:
            offer = subprotocols.parse_offer(self._offered_protocols)
        except ConflictingCredentials as error:
            await self._accept(subprotocols.PROTOCOL)
            await self._reject_connection(error)
            return
        if not await self._is_accepted(offer):
            await self._send({"type": "websocket.close"})
            raise StopConsumer
        await self._accept(offer.protocol)
        if self._runtime.is_draining:
            await self._close(CloseReason(1013, "Server shutting down. Reconnect."))
            return
        self._watching = asyncio.create_task(self._watch(), name="socket-watch")
        await self._run_step(self._authenticate(offer.headers, is_first=True))

    async def _accept(self, protocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": protocol})

    async def _is_accepted(self, offer: subprotocols.SubprotocolOffer) -> bool:
        """Whether to accept the handshake: some site allows the origin, and a supported subprotocol is offered."""
        origin = self._http_request.origin
        if self._offered_protocols and offer.protocol is None:
            return False
        try:
            return origin is None or await is_site_origin(origin, self._runtime.threads)
        except DATABASE_UNAVAILABLE:
            # Authentication compares the origin with those of the credential's own site in any case.
            return True

    # Messages

    async def _receive(self, text: str | None) -> None:
        if self._sender.is_closed:
            return
        try:
            message = self._read(text)
        except (InvalidRequest, BodyTooLarge) as error:
            if self._subscriptions is None:
                raise
            await self._reject_message(error, text)
            return
        await self._handle(message, text or "")

    def _read(self, text: str | None) -> AnyClientMessage:
        if text is None:
            raise InvalidRequest("Send text frames, each with one JSON message.", None, "malformed_body")
        limit = MAX_AUTH_BYTES if self._subscriptions is None else settings.MAX_LIVE_BODY_BYTES
        if len(text) > limit:
            raise BodyTooLarge(f"The message is longer than {limit:,} characters.")
        return decode_message(text)

    async def _handle(self, message: AnyClientMessage, text: str) -> None:
        if not isinstance(message, ClientPong):
            self._last_message_at = time.monotonic()
        if isinstance(message, AuthMessage):
            await self._authenticate({"authorization": f"Bearer {message.token}"}, is_first=self._subscriptions is None)
            return
        if self._subscriptions is None:
            raise MissingCredentials
        try:
            await self._dispatch_message(self._subscriptions, message)
        except WebSocketClosed:
            raise
        except Exception as error:  # the outermost handler of a message: an error in one must not affect the others
            await self._reject_message(error, text)

    async def _dispatch_message(self, subscriptions: WebSocketSubscriptions, message: AnyClientMessage) -> None:
        match message:
            case StartMessage():
                subscriptions.start(message)
            case FollowMessage():
                subscriptions.follow(message)
            case LeaveMessage():
                await subscriptions.leave(message)
            case CancelMessage():
                await subscriptions.cancel(message)
            case ClientPing(id=ping_id):
                await self._sender.send(ServerPong(id=ping_id))
            case ClientPong(id=ping_id):
                self._sender.acknowledge(ping_id)

    async def _reject_message(self, error: Exception, text: str | None) -> None:
        problem = to_problem(error)
        self._log("websocket_message_rejected", problem, error)
        await self._sender.send(
            ErrorMessage(ref=find_ref(text or ""), error=error_body(problem, self._http_request.request_id))
        )

    async def _authenticate(self, credential: Mapping[str, str], *, is_first: bool) -> None:
        """Authenticate the client. A handshake may lack a credential, to be sent later; a new one replaces the old."""
        try:
            caller = await authenticate_websocket(self._runtime, self._http_request, credential)
            if self._caller is not None and caller.site != self._caller.site:
                raise ConflictingCredentials
        except MissingCredentials:
            if credential:
                raise
            return
        except Exception as error:  # an invalid later credential is reported like any other error
            if is_first:
                raise
            await self._reject_message(error, None)
            return
        self._caller = caller
        if self._subscriptions is None:
            self._subscriptions = WebSocketSubscriptions(self._runtime, self._sender, caller)
        self._subscriptions.caller = caller
        await self._sender.send(ReadyMessage(site=caller.site.public_id))

    # The end

    async def _run_step(self, step: Awaitable[None]) -> None:
        """Run a step; an error before authentication, or an unexpected one, closes the connection."""
        try:
            await step
        except WebSocketClosed:
            if self._sender.is_overrun:
                await self._close(UNRESPONSIVE)
        except Exception as error:
            await self._reject_connection(error)

    async def _reject_connection(self, error: Exception) -> None:
        problem = to_problem(error)
        self._log("websocket_rejected", problem, error)
        with suppress(WebSocketClosed):
            await self._sender.send(ErrorMessage(error=error_body(problem, self._http_request.request_id)))
        default_code = 1008 if problem.status < 500 else 1011
        await self._close(CloseReason(CLOSE_CODES.get(problem.status, default_code), problem.message))

    async def _watch(self) -> None:
        while (closing := self._close_reason(time.monotonic())) is None:
            if time.monotonic() - self._sender.last_sent_at >= settings.STREAM_KEEPALIVE_SECONDS:
                with suppress(WebSocketClosed):
                    await self._sender.ping()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_until_due(time.monotonic())):
                    await self._runtime.draining.wait()
        await self._close(closing)

    def _close_reason(self, now: float) -> CloseReason | None:
        """Return why the connection must be closed now, or None."""
        unanswered = self._sender.unanswered_since
        if self._runtime.is_draining:
            return SHUTTING_DOWN
        if self._sender.is_overrun or unanswered is not None and now - unanswered >= settings.WEBSOCKET_PONG_SECONDS:
            return UNRESPONSIVE
        if self._subscriptions is None:
            return UNAUTHENTICATED if now - self._last_message_at >= settings.WEBSOCKET_AUTH_SECONDS else None
        return (
            IDLE if not self._subscriptions and now - self._last_active_at >= settings.WEBSOCKET_IDLE_SECONDS else None
        )

    @property
    def _last_active_at(self) -> float:
        """When the client last sent a message, or its last subscription ended."""
        return max(self._last_message_at, self._subscriptions.ended_at if self._subscriptions is not None else 0.0)

    def _seconds_until_due(self, now: float) -> float:
        """Return the seconds until the next ping or timeout can become due."""
        unanswered = self._sender.unanswered_since
        moments = [self._sender.last_sent_at + settings.STREAM_KEEPALIVE_SECONDS]
        if unanswered is not None:
            moments = [unanswered + settings.WEBSOCKET_PONG_SECONDS]
        if self._subscriptions is None:
            moments.append(self._last_message_at + settings.WEBSOCKET_AUTH_SECONDS)
        elif not self._subscriptions:
            moments.append(self._last_active_at + settings.WEBSOCKET_IDLE_SECONDS)
        return max(min(moments) - now, MIN_WATCH_SECONDS)

    async def _close(self, closing: CloseReason) -> None:
        if self._sender.is_closed:
            return
        self._sender.close()
        log.info("websocket_closed", code=closing.code, streams=len(self._subscriptions or ()))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._send_close(closing)
        except (OSError, TimeoutError):
            self._serving.cancel()
        if self._subscriptions is not None:
            await self._subscriptions.close()

    async def _send_close(self, closing: CloseReason) -> None:
        reason = closing.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        message = {"type": "websocket.close", "code": closing.code, "reason": reason}
        try:
            await self._send(message)
        except OSError:
            raise
        except Exception:  # Autobahn raises this class itself
            await self._send({**message, "code": DAPHNE_CLOSE_CODES.get(closing.code, closing.code)})

    async def _clean_up(self) -> None:
        self._sender.close()
        await cancel_and_wait(self._watching)
        if self._subscriptions is not None:
            await self._subscriptions.close()

    def _log(self, event: str, problem: ApiProblem, error: Exception) -> None:
        if problem.status >= 500:
            log.error(event, code=problem.code, exc_info=error if problem.is_unexpected else None)
        else:
            log.warning(event, code=problem.code)

"""`/v1/ws`: several streams and jobs over one connection, one JSON message a frame (docs/reference/websocket.md).

connect ──▶ Origin and protocol checked ──▶ accepted ──▶ proven by the handshake, or by the first message
receive ──▶ one word of the client's: what is wrong with it is told, and ends nothing
watch   ──▶ silence is asked about; who does not answer, proves nothing or wants nothing is sent away
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
from django.db import InterfaceError, OperationalError

from api.errors import Problem, TooLarge, problem_of
from api.live.asked import to_asked
from api.live.desk import LiveDesk, live_desk
from api.live.socket_line import Line, LineClosed
from api.live.socket_party import Party, meet
from api.live.socket_words import (
    Answering,
    Auth,
    Cancel,
    Failure,
    Follow,
    Leave,
    Ping,
    Pong,
    Ready,
    Said,
    Start,
    error_of,
    name_in,
    read,
)
from api.live.socket_work import Work
from core import metrics
from providers.dialects.errors import InvalidRequest
from tenants import subprotocols
from tenants.errors import Contradicting, Missing
from tenants.live_proof import is_site_origin

log = structlog.get_logger(__name__)

PATH = "/v1/ws"
#: A proof is short; nobody unproven makes us read more.
PROOF_BYTES = 16_384
SHORTEST_LOOK_SECONDS = 0.02
#: What a close frame has room for.
REASON_BYTES = 123
#: For the last word to a client that may not be reading.
CLOSE_SECONDS = 1.0
#: Autobahn, and so Daphne, lets applications close with 1000 and 4000 to 4999 alone.
DAPHNE_CODES = {1001: 4001, 1008: 4008, 1011: 4011, 1013: 4013}
CODES = {401: 4401, 403: 4403, 429: 4429, 503: 1013}


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection is closed (wire formats, 17)."""

    code: int
    reason: str


DRAINED = Closing(1001, "This process stops. Connect again, and follow after the last seq.")
UNPROVEN = Closing(4401, "No proof came in time.")
SILENT = Closing(4408, "A ping was left unanswered: too slow, or gone. Connect again, and follow after the last seq.")
IDLE = Closing(4408, "Nothing was under way for too long.")


class SocketConsumer(AsyncConsumer):  # type: ignore[misc] # Channels ships no types
    """One connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._asked = to_asked(scope, time.perf_counter())
        self._offered: list[str] = scope.get("subprotocols") or []
        self._send = send
        self._line = Line(send, settings.SOCKET_UNREAD_BYTES)
        self._party: Party | None = None
        self._work: Work | None = None
        self._watching: asyncio.Task[None] | None = None
        self._heard_at = time.monotonic()
        metrics.sockets_open.inc()
        try:
            with structlog.contextvars.bound_contextvars(request_id=self._asked.request_id):
                # A task of its own, to be cut off when the client takes nothing any more, not even a close.
                self._serving = asyncio.create_task(super().__call__(scope, receive, send), name="socket")
            await asyncio.wait({self._serving})
            if not self._serving.cancelled():
                self._serving.result()
        finally:
            self._serving.cancel()
            metrics.sockets_open.dec()
            await self._finish()

    async def dispatch(self, message: Mapping[str, Any]) -> None:
        # Not Channels' own, for nothing here uses the ORM, whose connections it would look after in a thread each time.
        match message["type"]:
            case "websocket.connect":
                await self._connect()
            case "websocket.receive":
                await self._survive(self._receive(message.get("text")))
            case _:
                raise StopConsumer

    # The handshake

    async def _connect(self) -> None:
        self._desk: LiveDesk = await live_desk()
        try:
            offer = subprotocols.read_offer(self._offered)
        except Contradicting as error:
            await self._accept(subprotocols.PROTOCOL)
            await self._turn_away(error)
            return
        if not await self._is_welcome(offer):
            await self._send({"type": "websocket.close"})
            raise StopConsumer
        await self._accept(offer.protocol)
        if self._desk.is_draining:
            await self._close(Closing(1013, "This process stops. Connect again."))
            return
        self._watching = asyncio.create_task(self._watch(), name="socket-watch")
        await self._survive(self._prove(offer.headers, is_first=True))

    async def _accept(self, protocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": protocol})

    async def _is_welcome(self, offer: subprotocols.Offer) -> bool:
        """Say whether a handshake is answered at all: not to pages of nobody we know, nor in another protocol."""
        origin = self._asked.origin
        if self._offered and offer.protocol is None:
            return False
        try:
            return origin is None or await is_site_origin(origin, self._desk.threads)
        except (OperationalError, InterfaceError):
            # The proof is held against the origins of its own site, in any case.
            return True

    # What the client says

    async def _receive(self, text: str | None) -> None:
        if self._line.is_closed:
            return
        try:
            said = self._read(text)
        except (InvalidRequest, TooLarge) as error:
            if self._work is None:
                raise
            await self._refuse(error, text)
            return
        await self._take(said, text or "")

    def _read(self, text: str | None) -> Said:
        if text is None:
            raise InvalidRequest("Send text frames, each with one JSON message.", None, "malformed_body")
        limit = PROOF_BYTES if self._work is None else settings.MAX_LIVE_BODY_BYTES
        if len(text) > limit:
            raise TooLarge(f"The message is longer than {limit:,} characters.")
        return read(text)

    async def _take(self, said: Said, text: str) -> None:
        if not isinstance(said, Pong):
            self._heard_at = time.monotonic()
        if isinstance(said, Auth):
            await self._prove({"authorization": f"Bearer {said.token}"}, is_first=self._work is None)
            return
        if self._work is None:
            raise Missing
        try:
            await self._do(self._work, said)
        except LineClosed:
            raise
        except Exception as error:  # the outermost of a message: a mistake in one is none in the others
            await self._refuse(error, text)

    async def _do(self, work: Work, said: Said) -> None:
        match said:
            case Start():
                work.start(said)
            case Follow():
                work.follow(said)
            case Leave():
                await work.leave(said)
            case Cancel():
                await work.cancel(said)
            case Ping(id=ping_id):
                await self._line.tell(Answering(id=ping_id))
            case Pong(id=ping_id):
                self._line.take(ping_id)

    async def _refuse(self, error: Exception, text: str | None) -> None:
        problem = problem_of(error)
        self._log("socket_refused", problem, error)
        await self._line.tell(Failure(ref=name_in(text or ""), error=error_of(problem, self._asked.request_id)))

    async def _prove(self, proof: Mapping[str, str], *, is_first: bool) -> None:
        """Learn who this is. Without any proof yet, one may follow; a later one takes the place of the first."""
        try:
            party = await meet(self._desk, self._asked, proof)
            if self._party is not None and party.site != self._party.site:
                raise Contradicting
        except Missing:
            if proof:
                raise
            return
        except Exception as error:  # what is wrong with a later proof is told like any other mistake
            if is_first:
                raise
            await self._refuse(error, None)
            return
        self._party = party
        if self._work is None:
            self._work = Work(self._desk, self._line, party)
        self._work.party = party
        await self._line.tell(Ready(site=party.site.public_id))

    # The end

    async def _survive(self, step: Awaitable[None]) -> None:
        """Take a step; what is wrong before there is a proof, or with us, ends the connection."""
        try:
            await step
        except LineClosed:
            if self._line.is_overrun:
                await self._close(SILENT)
        except Exception as error:
            await self._turn_away(error)

    async def _turn_away(self, error: Exception) -> None:
        problem = problem_of(error)
        self._log("socket_turned_away", problem, error)
        with suppress(LineClosed):
            await self._line.tell(Failure(error=error_of(problem, self._asked.request_id)))
        otherwise = 1008 if problem.status < 500 else 1011
        await self._close(Closing(CODES.get(problem.status, otherwise), problem.message))

    async def _watch(self) -> None:
        while (closing := self._judge(time.monotonic())) is None:
            if time.monotonic() - self._line.told_at >= settings.STREAM_KEEPALIVE_SECONDS:
                with suppress(LineClosed):
                    await self._line.ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_look(time.monotonic())):
                    await self._desk.draining.wait()
        await self._close(closing)

    def _judge(self, now: float) -> Closing | None:
        """Say why the connection is to be closed now; None while it is not."""
        unanswered = self._line.unanswered_since
        if self._desk.is_draining:
            return DRAINED
        if self._line.is_overrun or unanswered is not None and now - unanswered >= settings.SOCKET_PONG_SECONDS:
            return SILENT
        if self._work is None:
            return UNPROVEN if now - self._heard_at >= settings.SOCKET_PROOF_SECONDS else None
        return IDLE if not self._work and now - self._busy_at >= settings.SOCKET_IDLE_SECONDS else None

    @property
    def _busy_at(self) -> float:
        """When the client last wanted something, or had it under way."""
        return max(self._heard_at, self._work.ended_at if self._work is not None else 0.0)

    def _seconds_to_look(self, now: float) -> float:
        """Return how long nothing can become due."""
        unanswered = self._line.unanswered_since
        moments = [self._line.told_at + settings.STREAM_KEEPALIVE_SECONDS]
        if unanswered is not None:
            moments = [unanswered + settings.SOCKET_PONG_SECONDS]
        if self._work is None:
            moments.append(self._heard_at + settings.SOCKET_PROOF_SECONDS)
        elif not self._work:
            moments.append(self._busy_at + settings.SOCKET_IDLE_SECONDS)
        return max(min(moments) - now, SHORTEST_LOOK_SECONDS)

    async def _close(self, closing: Closing) -> None:
        if self._line.is_closed:
            return
        self._line.close()
        log.info("socket_closed", code=closing.code, streams=len(self._work or ()))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._say_close(closing)
        except (OSError, TimeoutError):
            self._serving.cancel()
        if self._work is not None:
            await self._work.close()

    async def _say_close(self, closing: Closing) -> None:
        reason = closing.reason.encode()[:REASON_BYTES].decode(errors="ignore")
        message = {"type": "websocket.close", "code": closing.code, "reason": reason}
        try:
            await self._send(message)
        except OSError:
            raise
        except Exception:  # Autobahn raises this class itself
            await self._send({**message, "code": DAPHNE_CODES.get(closing.code, closing.code)})

    async def _finish(self) -> None:
        self._line.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._work is not None:
            await self._work.close()

    def _log(self, event: str, problem: Problem, error: Exception) -> None:
        if problem.status >= 500:
            is_ours = problem.code == "internal_error"
            log.error(event, code=problem.code, exc_info=error if is_ours else None)
        else:
            log.warning(event, code=problem.code)

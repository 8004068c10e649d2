"""Live requests for an answer: whole, as a stream, or started now and read by somebody else."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.db import OperationalError

from api.live.answer import (
    JSON,
    Course,
    first_events,
    keep_alive_seconds,
    send_body,
    send_error,
    send_events,
    send_whole,
)
from api.live.asked import Asked
from api.live.begin import PATIENCE_SECONDS, Begun, begin, idempotency_key, to_json
from api.live.desk import LiveDesk, live_desk
from api.live.edges import STREAM_READERS, Reader, Wanted, Wire
from api.live.request import Reply
from api.live.run import Run, account_for_hit, start_run
from api.live.who import Known, enter
from core import clock, metrics
from providers.dialects.errors import InvalidRequest
from streams.entries import About
from streams.errors import StreamsClosed
from streams.follow import follow
from streams.live import LiveStream
from streams.log import Writer
from tenants import tickets
from tenants.admission.asks import Attach, Hit
from tenants.admission.windows import Left
from tenants.limits import Scope
from tenants.live_proof import is_site_origin
from tenants.tickets import Readable


@dataclass(frozen=True, slots=True)
class Edge:
    """One address of the live path."""

    route: str
    wire: Wire
    scope: Scope
    read: Reader

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        """Answer the request, or say in its dialect why not."""
        await answered(Course(asked, self.route, self.wire), reply, self._answer)

    async def _answer(self, course: Course, reply: Reply) -> None:
        desk, known = await enter(course, self.scope)
        wanted = self.read(course.asked.body, course.asked.headers)
        course.wire = wanted.wire
        begun = await begin(desk, known, course.asked, wanted)
        match begun:
            case Hit(body):
                await _answer_from_cache(desk, course, reply, known, wanted, body)
            case Attach(stream_id):
                course.extra.append((b"idempotent-replayed", b"true"))
                await _serve(desk, course, reply, known, stream_id, patience_seconds=PATIENCE_SECONDS)
            case Begun():
                course.left = begun.left
                await _answer_begun(desk, course, reply, begun)


async def answered(course: Course, reply: Reply, answer: Callable[[Course, Reply], Awaitable[None]]) -> None:
    """Let `answer` do so; whatever it raises is told in the caller's dialect."""
    try:
        await answer(course, reply)
    except asyncio.CancelledError:
        course.done(499)
        raise
    except Exception as error:  # the outermost of a live request: it gets an answer, and the log the reason
        if reply.has_begun:
            # An answer that breaks off: the connection is closed without its end, so nobody takes it for whole.
            raise
        await _let_the_page_read(course)
        await send_error(course, reply, error)


async def _let_the_page_read(course: Course) -> None:
    """Let a page of any site's read why it was refused, also before it is clear whose it is."""
    origin = course.asked.origin
    if course.origin is None and origin is not None:
        with suppress(OperationalError):
            if await is_site_origin(origin, (await live_desk()).threads):
                course.origin = origin


async def start_stream(asked: Asked, reply: Reply) -> None:
    """`POST /v1/streams`: begin a stream that nobody reads yet, and answer who may read it."""
    await answered(Course(asked, "streams"), reply, _start_stream)


async def _start_stream(course: Course, reply: Reply) -> None:
    asked = course.asked
    desk, known = await enter(course, Scope.STREAMS_WRITE)
    dialect = asked.parameter("dialect") or ("anthropic" if "anthropic-version" in asked.headers else "openai")
    opened = await open_stream(desk, known, asked, dialect, detached=True)
    course.left, stream_id = opened.left, opened.stream_id
    ticket = tickets.mint(
        known.identity,
        Readable.STREAM,
        stream_id,
        # Started by a page itself, the stream is for that page.
        origin=asked.headers.get("x-ticket-origin") or asked.origin,
        own=asked.own_origin,
    )
    body = {
        "id": stream_id,
        # Not where we were asked at: that may be an address of the inside, and this goes to a browser.
        "events_url": f"{settings.BASE_URL}/v1/streams/{stream_id}/events",
        "ticket": ticket.text,
        "expires_at": ticket.expires_at,
    }
    await send_body(course, reply, to_json(body), 202)


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that was begun, or that an earlier request with the same key had begun."""

    stream_id: str
    left: tuple[Left, ...] = ()
    is_replayed: bool = False


async def open_stream(desk: LiveDesk, known: Known, asked: Asked, dialect: str, *, detached: bool) -> Opened:
    """Begin the stream that the body asks for, whether it asks for one or for a whole answer.

    Raises:
        InvalidRequest: there is no such dialect, and all that `begin` raises.
    """
    if dialect not in STREAM_READERS:
        raise InvalidRequest(f"'dialect' must be one of {', '.join(STREAM_READERS)}.", "dialect", "invalid_value")
    wanted = _streamed(STREAM_READERS[dialect](asked.body, asked.headers))
    begun = await begin(desk, known, asked, wanted)
    match begun:
        case Attach(stream_id):
            return Opened(stream_id, is_replayed=True)
        case Begun():
            started = _run_stream(desk, begun, detached=detached, continuation=_wants_continuation(asked))
            if detached:
                # Its reader has yet to come, and may come to any process.
                await desk.streams.announced(started)
            return Opened(begun.ask.stream_id, begun.left)
        case Hit():
            raise AssertionError("Streams are not looked for among the kept answers.")


async def _answer_begun(desk: LiveDesk, course: Course, reply: Reply, begun: Begun) -> None:
    if begun.wanted.streams:
        _run_stream(desk, begun, continuation=_wants_continuation(course.asked))
        await _serve(desk, course, reply, begun.known, begun.ask.stream_id)
    elif idempotency_key(course.asked, begun.wanted) is not None:
        _run_answer(desk, begun)
        await _serve(desk, course, reply, begun.known, begun.ask.stream_id)
    else:
        waited = time.perf_counter()
        run = start_run(desk, begun)
        body = await run.whole()
        course.upstream_seconds = time.perf_counter() - waited
        if begun.ask.cache_key is not None or run.known_inputs is not None:
            # Of a list of inputs only the whole list is a hit.
            course.cached = "MISS" if run.trace.closed else "HIT"
            metrics.cached.labels(course.cached.lower()).inc()
        await send_body(course, reply, body)


async def _serve(
    desk: LiveDesk, course: Course, reply: Reply, known: Known, stream_id: str, *, patience_seconds: float = 0
) -> None:
    """Send what a stream holds from its beginning: a whole answer, or events until the end."""
    waited = time.perf_counter()
    following = follow(
        desk.server,
        stream_id,
        0,
        site=known.site,
        idle_seconds=keep_alive_seconds(),
        patience_seconds=patience_seconds,
    )
    async with following:
        events = await first_events(following)
        course.upstream_seconds = time.perf_counter() - waited
        about = following.about
        if about.content_type == JSON:
            await send_whole(course, reply, about, events)
        else:
            await send_events(course, reply, following, events)


async def _answer_from_cache(
    desk: LiveDesk, course: Course, reply: Reply, known: Known, wanted: Wanted, body: bytes
) -> None:
    metrics.cached.labels("hit").inc()
    course.cached = "HIT"
    desk.do_beside(account_for_hit(desk, known, course.asked.request_id, wanted))
    await send_body(course, reply, body)


def _run_stream(desk: LiveDesk, begun: Begun, *, detached: bool = False, continuation: bool = False) -> LiveStream:
    run = start_run(desk, begun, continuation=continuation)
    return _write(desk, begun, "stream", run, run.write_stream, detached=detached)


def _run_answer(desk: LiveDesk, begun: Begun) -> None:
    run = start_run(desk, begun)
    _write(desk, begun, "answer", run, run.write_whole)


def _write(
    desk: LiveDesk,
    begun: Begun,
    kind: Literal["stream", "answer"],
    run: Run,
    work: Callable[[Writer], Awaitable[None]],
    *,
    detached: bool = False,
) -> LiveStream:
    try:
        return desk.streams.start(_about(begun, kind), work, detached=detached)
    except StreamsClosed:
        # This process was told to stop since it let the request in, and nobody else gives back what that took.
        run.give_up()
        raise


def _about(begun: Begun, kind: Literal["stream", "answer"]) -> About:
    return About(
        id=begun.ask.stream_id,
        site=begun.known.site,
        status=0,
        content_type="",
        dialect=begun.wanted.wire.value,
        origin=begun.known.identity.origin,
        kind=kind,
        created_at=clock.now().timestamp(),
        token=begun.known.identity.token_id,
        user=begun.known.identity.user,
        model=begun.wanted.request.model,
    )


def _wants_continuation(asked: Asked) -> bool:
    return asked.headers.get("x-nightdesk-continue", "").lower() == "true"


def _streamed(wanted: Wanted) -> Wanted:
    return Wanted(
        wanted.wire,
        wanted.request,
        streams=True,
        include_usage=wanted.include_usage,
        request_id=wanted.request_id,
        provider=wanted.provider,
    )

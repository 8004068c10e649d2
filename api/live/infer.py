"""Live requests for an answer: whole, as a stream, or started now and read by somebody else."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.db import OperationalError

from api.live.admit import STREAM_START_TIMEOUT_SECONDS, AdmittedRequest, admit_request, idempotency_key, to_json
from api.live.authenticate import Caller, authenticate
from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.respond import (
    JSON,
    ResponseContext,
    keep_alive_seconds,
    send_body,
    send_complete,
    send_error,
    send_events,
    wait_for_first_events,
)
from api.live.run import LiveRun, record_cache_hit, start_run
from api.live.runtime import LiveRuntime, live_runtime
from api.live.wire_formats import STREAM_PARSERS, BodyParser, ParsedRequest, WireFormat
from core import clock, metrics
from providers.invalid_request import InvalidRequest
from streams.buffer import LocalStream
from streams.entries import StreamInfo
from streams.errors import StreamsClosed
from streams.reader import follow
from streams.writer import EventLogWriter
from tenants import tickets
from tenants.access import TokenScope
from tenants.async_authentication import is_site_origin
from tenants.rate_limiting.types import AttachToStream, CacheHit
from tenants.rate_limiting.windows import RemainingQuota
from tenants.tickets import ReadableKind


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """One address of the live path."""

    route: str
    wire: WireFormat
    scope: TokenScope
    parse: BodyParser

    async def __call__(self, http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        """Answer the request, or say in its dialect why not."""
        await with_error_response(ResponseContext(http_request, self.route, self.wire), response, self._respond)

    async def _respond(self, context: ResponseContext, response: LiveHttpResponse) -> None:
        runtime, caller = await authenticate(context, self.scope)
        parsed = self.parse(context.http_request.body, context.http_request.headers)
        context.wire = parsed.wire
        admitted = await admit_request(runtime, caller, context.http_request, parsed)
        match admitted:
            case CacheHit(body):
                await _respond_from_cache(runtime, context, response, caller, parsed, body)
            case AttachToStream(stream_id):
                context.extra_headers.append((b"idempotent-replayed", b"true"))
                await _send_stream(
                    runtime, context, response, caller, stream_id, start_timeout_seconds=STREAM_START_TIMEOUT_SECONDS
                )
            case AdmittedRequest():
                context.quotas = admitted.quotas
                await _respond_admitted(runtime, context, response, admitted)


async def with_error_response(
    context: ResponseContext,
    response: LiveHttpResponse,
    answer: Callable[[ResponseContext, LiveHttpResponse], Awaitable[None]],
) -> None:
    """Let `answer` do so; whatever it raises is told in the caller's dialect."""
    try:
        await answer(context, response)
    except asyncio.CancelledError:
        context.record_response(499)
        raise
    except Exception as error:  # the outermost of a live request: it gets an answer, and the log the reason
        if response.has_started:
            # An answer that breaks off: the connection is closed without its end, so nobody takes it for whole.
            raise
        await _allow_origin_for_error(context)
        await send_error(context, response, error)


async def _allow_origin_for_error(context: ResponseContext) -> None:
    """Let a page of any site's read why it was refused, also before it is clear whose it is."""
    origin = context.http_request.origin
    if context.origin is None and origin is not None:
        with suppress(OperationalError):
            if await is_site_origin(origin, (await live_runtime()).threads):
                context.origin = origin


async def start_stream(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    """`POST /v1/streams`: begin a stream that nobody reads yet, and answer who may read it."""
    await with_error_response(ResponseContext(http_request, "streams"), response, _start_stream)


async def _start_stream(context: ResponseContext, response: LiveHttpResponse) -> None:
    http_request = context.http_request
    runtime, caller = await authenticate(context, TokenScope.STREAMS_WRITE)
    dialect = http_request.query_parameter("dialect") or (
        "anthropic" if "anthropic-version" in http_request.headers else "openai"
    )
    opened = await open_stream(runtime, caller, http_request, dialect, detached=True)
    context.quotas, stream_id = opened.quotas, opened.stream_id
    ticket = tickets.mint(
        caller.identity,
        ReadableKind.STREAM,
        stream_id,
        # Started by a page itself, the stream is for that page.
        origin=http_request.headers.get("x-ticket-origin") or http_request.origin,
        own=http_request.server_origin,
    )
    body = {
        "id": stream_id,
        # Not where we were asked at: that may be an address of the inside, and this goes to a browser.
        "events_url": f"{settings.BASE_URL}/v1/streams/{stream_id}/events",
        "ticket": ticket.text,
        "expires_at": ticket.expires_at,
    }
    await send_body(context, response, to_json(body), 202)


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream that was begun, or that an earlier request with the same key had begun."""

    stream_id: str
    quotas: tuple[RemainingQuota, ...] = ()
    is_replayed: bool = False


async def open_stream(
    runtime: LiveRuntime, caller: Caller, http_request: LiveHttpRequest, dialect: str, *, detached: bool
) -> OpenedStream:
    """Begin the stream that the body asks for, whether it asks for one or for a whole answer.

    Raises:
        InvalidRequest: there is no such dialect, and all that `admit_request` raises.
    """
    if dialect not in STREAM_PARSERS:
        raise InvalidRequest(f"'dialect' must be one of {', '.join(STREAM_PARSERS)}.", "dialect", "invalid_value")
    parsed = _as_streaming(STREAM_PARSERS[dialect](http_request.body, http_request.headers))
    admitted = await admit_request(runtime, caller, http_request, parsed)
    match admitted:
        case AttachToStream(stream_id):
            return OpenedStream(stream_id, is_replayed=True)
        case AdmittedRequest():
            started = _run_stream(runtime, admitted, detached=detached, continuation=_wants_continuation(http_request))
            if detached:
                # Its reader has yet to come, and may come to any process.
                await runtime.streams.wait_until_visible(started)
            return OpenedStream(admitted.admission.stream_id, admitted.quotas)
        case CacheHit():
            raise AssertionError("Streams are not looked for among the kept answers.")


async def _respond_admitted(
    runtime: LiveRuntime, context: ResponseContext, response: LiveHttpResponse, admitted: AdmittedRequest
) -> None:
    if admitted.parsed.streams:
        _run_stream(runtime, admitted, continuation=_wants_continuation(context.http_request))
        await _send_stream(runtime, context, response, admitted.caller, admitted.admission.stream_id)
    elif idempotency_key(context.http_request, admitted.parsed) is not None:
        _run_answer(runtime, admitted)
        await _send_stream(runtime, context, response, admitted.caller, admitted.admission.stream_id)
    else:
        upstream_started_at = time.perf_counter()
        run = start_run(runtime, admitted)
        body = await run.complete_answer()
        context.upstream_seconds = time.perf_counter() - upstream_started_at
        if admitted.admission.cache_key is not None or run.cached_inputs is not None:
            # Of a list of inputs only the whole list is a hit.
            context.cached = "MISS" if run.trace.closed else "HIT"
            metrics.response_cache.labels(context.cached.lower()).inc()
        await send_body(context, response, body)


async def _send_stream(
    runtime: LiveRuntime,
    context: ResponseContext,
    response: LiveHttpResponse,
    caller: Caller,
    stream_id: str,
    *,
    start_timeout_seconds: float = 0,
) -> None:
    """Send what a stream holds from its beginning: a whole answer, or events until the end."""
    upstream_started_at = time.perf_counter()
    following = follow(
        runtime.process_streams,
        stream_id,
        0,
        site=caller.site,
        idle_seconds=keep_alive_seconds(),
        start_timeout_seconds=start_timeout_seconds,
    )
    async with following:
        events = await wait_for_first_events(following)
        context.upstream_seconds = time.perf_counter() - upstream_started_at
        about = following.info
        if about.content_type == JSON:
            await send_complete(context, response, about, events)
        else:
            await send_events(context, response, following, events)


async def _respond_from_cache(
    runtime: LiveRuntime,
    context: ResponseContext,
    response: LiveHttpResponse,
    caller: Caller,
    parsed: ParsedRequest,
    body: bytes,
) -> None:
    metrics.response_cache.labels("hit").inc()
    context.cached = "HIT"
    runtime.spawn(record_cache_hit(runtime, caller, context.http_request.request_id, parsed))
    await send_body(context, response, body)


def _run_stream(
    runtime: LiveRuntime, admitted: AdmittedRequest, *, detached: bool = False, continuation: bool = False
) -> LocalStream:
    run = start_run(runtime, admitted, continuation=continuation)
    return _start_writer(runtime, admitted, "stream", run, run.write_stream, detached=detached)


def _run_answer(runtime: LiveRuntime, admitted: AdmittedRequest) -> None:
    run = start_run(runtime, admitted)
    _start_writer(runtime, admitted, "answer", run, run.write_answer)


def _start_writer(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    kind: Literal["stream", "answer"],
    run: LiveRun,
    work: Callable[[EventLogWriter], Awaitable[None]],
    *,
    detached: bool = False,
) -> LocalStream:
    try:
        return runtime.streams.start(_stream_metadata(admitted, kind), work, detached=detached)
    except StreamsClosed:
        # This process was told to stop since it let the request in, and nobody else gives back what that took.
        run.release()
        raise


def _stream_metadata(admitted: AdmittedRequest, kind: Literal["stream", "answer"]) -> StreamInfo:
    return StreamInfo(
        id=admitted.admission.stream_id,
        site=admitted.caller.site,
        status=0,
        content_type="",
        dialect=admitted.parsed.wire.value,
        origin=admitted.caller.identity.origin,
        kind=kind,
        created_at=clock.now().timestamp(),
        token=admitted.caller.identity.token_id,
        user=admitted.caller.identity.user,
        model=admitted.parsed.request.model,
    )


def _wants_continuation(http_request: LiveHttpRequest) -> bool:
    return http_request.headers.get("x-nightdesk-continue", "").lower() == "true"


def _as_streaming(parsed: ParsedRequest) -> ParsedRequest:
    return ParsedRequest(
        parsed.wire,
        parsed.request,
        streams=True,
        include_usage=parsed.include_usage,
        request_id=parsed.request_id,
        provider=parsed.provider,
    )

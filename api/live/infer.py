"""The endpoints that answer requests with inference: complete, streamed, or started now and read elsewhere.

`live.run_stream` lists the steps of a live stream, across its two tasks.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from django.conf import settings

from api.live.authenticate import authenticate
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
    to_json,
    wait_for_first_events,
)
from api.live.wire_formats import STREAM_PARSERS, BodyParser, ParsedRequest, WireFormat
from api.live.wire_writer import WireAnswerEncoder, response_writer_factory
from core import metrics
from core.database_threads import DATABASE_UNAVAILABLE
from live.admit import STREAM_START_TIMEOUT_SECONDS, AdmittedRequest, admit_request
from live.request import Caller, LiveRequest
from live.run_answer import AnswerRun, start_answer
from live.run_stream import start_stream
from live.runtime import LiveRuntime, live_runtime
from live.settlement import record_cache_hit
from providers.invalid_request import InvalidRequest
from streams.reader import follow
from tenants import tickets
from tenants.access import TokenScope
from tenants.async_authentication import is_site_origin
from tenants.rate_limiting.types import AttachToStream, CacheHit
from tenants.rate_limiting.windows import RemainingQuota
from tenants.tickets import ReadableKind


@dataclass(frozen=True, slots=True)
class InferenceEndpoint:
    """One address of the live path that calls a provider."""

    route: str
    wire: WireFormat
    scope: TokenScope
    parse: BodyParser

    async def __call__(self, http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
        """Send the answer, or an error in the caller's wire format."""
        await with_error_response(ResponseContext(http_request, self.route, self.wire), response, self._respond)

    async def _respond(self, context: ResponseContext, response: LiveHttpResponse) -> None:
        runtime, caller = await authenticate(context, self.scope)
        parsed = self.parse(context.http_request.body, context.http_request.headers)
        context.wire = parsed.wire
        live_request = to_live_request(caller, context.http_request, parsed)
        admitted = await admit_request(runtime, live_request)
        match admitted:
            case CacheHit(body):
                await _respond_from_cache(runtime, context, response, live_request, body)
            case AttachToStream(stream_id):
                context.extra_headers.append((b"idempotent-replayed", b"true"))
                await _send_stream(
                    runtime, context, response, caller, stream_id, start_timeout_seconds=STREAM_START_TIMEOUT_SECONDS
                )
            case AdmittedRequest():
                context.quotas = admitted.quotas
                await _respond_admitted(runtime, context, response, parsed, admitted)


async def with_error_response(
    context: ResponseContext,
    response: LiveHttpResponse,
    respond: Callable[[ResponseContext, LiveHttpResponse], Awaitable[None]],
) -> None:
    """Run `respond`; send whatever it raises as an error in the caller's wire format."""
    try:
        await respond(context, response)
    except asyncio.CancelledError:
        context.record_response(499)
        raise
    except Exception as error:  # the outermost handler: the client gets an error, and the log the reason
        if response.has_started:
            # The connection is closed without the end of the response, so no client takes it for complete.
            raise
        await _allow_origin_for_error(context)
        await send_error(context, response, error)


async def _allow_origin_for_error(context: ResponseContext) -> None:
    """Let a page of any site read why its request was rejected, even before the site is authenticated."""
    origin = context.http_request.origin
    if context.origin is None and origin is not None:
        with suppress(*DATABASE_UNAVAILABLE):
            if await is_site_origin(origin, (await live_runtime()).threads):
                context.origin = origin


async def create_stream(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    """`POST /v1/streams`: start a stream without a reader, and return a ticket that may read it."""
    await with_error_response(ResponseContext(http_request, "streams"), response, _create_stream)


async def _create_stream(context: ResponseContext, response: LiveHttpResponse) -> None:
    http_request = context.http_request
    runtime, caller = await authenticate(context, TokenScope.STREAMS_WRITE)
    wire_format = http_request.query_parameter("dialect") or (
        "anthropic" if "anthropic-version" in http_request.headers else "openai"
    )
    opened = await open_stream(runtime, caller, http_request, wire_format, detached=True)
    context.quotas, stream_id = opened.quotas, opened.stream_id
    ticket = tickets.mint(
        caller.identity,
        ReadableKind.STREAM,
        stream_id,
        # A stream that a page started itself is for that page.
        origin=http_request.headers.get("x-ticket-origin") or http_request.origin,
        own_origin=http_request.server_origin,
    )
    body = {
        "id": stream_id,
        # Not the address of this request, which may be an internal one: this goes to a browser.
        "events_url": f"{settings.BASE_URL}/v1/streams/{stream_id}/events",
        "ticket": ticket.text,
        "expires_at": ticket.expires_at,
    }
    await send_body(context, response, to_json(body), 202)


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream that was just started, or that an earlier request with the same idempotency key started."""

    stream_id: str
    quotas: tuple[RemainingQuota, ...] = ()
    is_replayed: bool = False


async def open_stream(
    runtime: LiveRuntime, caller: Caller, http_request: LiveHttpRequest, wire_format: str, *, detached: bool
) -> OpenedStream:
    """Start the stream that the body describes; its `stream` field does not matter.

    Raises:
        InvalidRequest: there is no such wire format, and all that `admit_request` raises.
    """
    if wire_format not in STREAM_PARSERS:
        raise InvalidRequest(f"'dialect' must be one of {', '.join(STREAM_PARSERS)}.", "dialect", "invalid_value")
    parsed = replace(STREAM_PARSERS[wire_format](http_request.body, http_request.headers), streams=True)
    admitted = await admit_request(runtime, to_live_request(caller, http_request, parsed))
    match admitted:
        case AttachToStream(stream_id):
            return OpenedStream(stream_id, is_replayed=True)
        case AdmittedRequest():
            stream = start_stream(runtime, admitted, response_writer_factory(parsed, admitted), detached=detached)
            if detached:
                # Its reader has yet to connect, and may connect to any process.
                await runtime.streams.wait_until_visible(stream)
            return OpenedStream(admitted.admission.stream_id, admitted.quotas)
        case CacheHit():
            raise AssertionError("The response cache is not looked up for streams.")


def to_live_request(caller: Caller, http_request: LiveHttpRequest, parsed: ParsedRequest) -> LiveRequest:
    """Return the request in the form that the `live` room takes."""
    headers, path, wire_format = http_request.headers, http_request.path, parsed.wire.value
    cache_control = headers.get("cache-control", "")
    return LiveRequest(
        request_id=http_request.request_id,
        caller=caller,
        request=parsed.request,
        wire_format=wire_format,
        # With the wire format, because some addresses take several.
        body_hash=hashlib.sha256(b"\n".join((path.encode(), wire_format.encode(), http_request.body))).digest(),
        idempotency_key=headers.get("idempotency-key") or headers.get("x-client-request-id") or parsed.request_id,
        provider=parsed.provider,
        streams=parsed.streams,
        allows_continuation=parsed.streams and headers.get("x-nightdesk-continue", "").lower() == "true",
        allows_cache="no-store" not in cache_control and "no-cache" not in cache_control,
    )


async def _respond_admitted(
    runtime: LiveRuntime,
    context: ResponseContext,
    response: LiveHttpResponse,
    parsed: ParsedRequest,
    admitted: AdmittedRequest,
) -> None:
    if parsed.streams:
        start_stream(runtime, admitted, response_writer_factory(parsed, admitted))
        await _send_stream(runtime, context, response, admitted.caller, admitted.admission.stream_id)
    elif admitted.admission.idempotency_key is not None:
        start_answer(runtime, admitted, response_writer_factory(parsed, admitted))
        await _send_stream(runtime, context, response, admitted.caller, admitted.admission.stream_id)
    else:
        upstream_started_at = time.perf_counter()
        run = AnswerRun.with_lease(runtime, admitted, WireAnswerEncoder(parsed, admitted))
        body = await run.run()
        context.upstream_seconds = time.perf_counter() - upstream_started_at
        if (cache_status := run.cache_status) is not None:
            context.cache_status = cache_status
            metrics.response_cache.labels(cache_status).inc()
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
    """Send a stream from its beginning: a complete answer, or events until the end."""
    upstream_started_at = time.perf_counter()
    reader = follow(
        runtime.process_streams,
        stream_id,
        0,
        site=caller.site,
        idle_seconds=keep_alive_seconds(),
        start_timeout_seconds=start_timeout_seconds,
    )
    async with reader:
        events = await wait_for_first_events(reader)
        context.upstream_seconds = time.perf_counter() - upstream_started_at
        if reader.info.content_type == JSON:
            await send_complete(context, response, reader.info, events)
        else:
            await send_events(context, response, reader, events)


async def _respond_from_cache(
    runtime: LiveRuntime, context: ResponseContext, response: LiveHttpResponse, live_request: LiveRequest, body: bytes
) -> None:
    metrics.response_cache.labels("hit").inc()
    context.cache_status = "hit"
    runtime.spawn(record_cache_hit(runtime, live_request))
    await send_body(context, response, body)

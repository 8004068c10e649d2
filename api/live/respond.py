"""Sends responses: headers, complete bodies, streams of server-sent events, and errors in the caller's wire format."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import structlog
from django.conf import settings

from api.cors import cors_headers
from api.errors import ApiProblem, to_problem
from api.live.http_handler import Headers, LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.wire_formats import WireFormat, encode_error, status_for
from core import clock, metrics
from providers.sse_writer import KEEP_ALIVE, encode_frames, encode_unnumbered_frame
from streams.entries import LoggedEvent, StreamInfo
from streams.errors import StreamEndedEmpty
from streams.reader import EventLogReader
from tenants.rate_limiting.windows import RemainingQuota

log = structlog.get_logger(__name__)

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
#: Proxies must not cache, compress or buffer a stream.
STREAM_HEADERS: Headers = [
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache, no-transform, no-store"),
    (b"x-accel-buffering", b"no"),
]
#: How long an `EventSource` waits before it reconnects.
RETRY_MILLISECONDS = 1000


@dataclass(slots=True)
class ResponseContext:
    """What the response's headers and metrics need to know of a request; filled in as the request proceeds."""

    http_request: LiveHttpRequest
    route: str
    wire: WireFormat = WireFormat.OPENAI
    #: The origin whose pages may read the response.
    origin: str | None = None
    quotas: tuple[RemainingQuota, ...] = ()
    #: Time spent waiting for providers.
    upstream_seconds: float = 0.0
    #: None: the response cache was not looked up.
    cache_status: Literal["hit", "miss"] | None = None
    #: Headers of this response only.
    extra_headers: Headers = field(default_factory=list)

    def headers(self) -> Headers:
        """Return the headers of every response. Call it when the response begins, because it measures the overhead."""
        overhead = max(time.perf_counter() - self.http_request.started_at - self.upstream_seconds, 0.0)
        metrics.route_metrics(self.route).overhead_seconds.observe(overhead)
        milliseconds, upstream = overhead * 1000, self.upstream_seconds * 1000
        request_id = self.http_request.request_id.encode()
        headers = [
            (b"x-request-id", request_id),
            (b"x-nightdesk-overhead-ms", b"%.2f" % milliseconds),
            (b"server-timing", b"nightdesk;dur=%.2f, upstream;dur=%.2f" % (milliseconds, upstream)),
            *cors_headers(self.origin),
            *_rate_limit_headers(self.wire, self.quotas),
            *self.extra_headers,
        ]
        if self.wire is WireFormat.ANTHROPIC:
            headers.append((b"request-id", request_id))
        if self.cache_status is not None:
            headers.append((b"x-cache", self.cache_status.upper().encode()))
        client_id = self.http_request.headers.get("x-client-request-id", "")
        if client_id.isascii() and client_id.isprintable() and 0 < len(client_id) <= 128:
            headers.append((b"x-client-request-id", client_id.encode()))
        return headers

    def record_response(self, status: int) -> None:
        """Count the response, and observe its duration."""
        metrics.response_counter(self.route, status).inc()
        metrics.route_metrics(self.route).seconds.observe(time.perf_counter() - self.http_request.started_at)


async def send_body(
    context: ResponseContext, response: LiveHttpResponse, body: bytes, status: int = 200, content_type: str = JSON
) -> None:
    """Send a complete response."""
    headers = [*context.headers(), (b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    await response.send(status, headers, body)
    context.record_response(status)


async def send_error(context: ResponseContext, response: LiveHttpResponse, error: BaseException) -> None:
    """Send an error in the caller's wire format, and log it."""
    problem = to_problem(error)
    _log_problem(context, problem, error)
    context.extra_headers += _error_headers(problem)
    body = encode_error(context.wire, problem, context.http_request.request_id)
    await send_body(context, response, body, status_for(context.wire, problem))


async def send_complete(
    context: ResponseContext, response: LiveHttpResponse, info: StreamInfo, events: Sequence[LoggedEvent]
) -> None:
    """Send the only event of a stream as a response: a complete answer, or an error before the first token."""
    if info.retry_after_seconds is not None:
        context.extra_headers.append((b"retry-after", b"%d" % info.retry_after_seconds))
    await send_body(context, response, b"".join(event.data for event in events), info.status)


async def send_events(
    context: ResponseContext, response: LiveHttpResponse, reader: EventLogReader, events: Sequence[LoggedEvent]
) -> None:
    """Send a stream from these events on, until it ends or the client disconnects."""
    await response.start(200, [*context.headers(), *STREAM_HEADERS])
    metrics.route_metrics(context.route).first_byte_seconds.observe(
        time.perf_counter() - context.http_request.started_at
    )
    stream_id = reader.info.id
    await response.write(_to_sse_frames(stream_id, events, retry_milliseconds=RETRY_MILLISECONDS))
    final_frame = b""
    try:
        async for more in reader:
            await response.write(_to_sse_frames(stream_id, more) if more else KEEP_ALIVE)
    except Exception as error:  # the client must neither wait forever nor take this for the end of the answer
        final_frame = encode_interruption(context, WireFormat(reader.info.wire_format), error)
    await response.write(final_frame, more=False)
    context.record_response(200)


async def wait_for_first_events(reader: EventLogReader) -> Sequence[LoggedEvent]:
    """Wait for the first events, with which the response's status is known. Empty: the client already has them all.

    Raises:
        StreamEndedEmpty: the stream has no event. An empty response would look like a complete answer.
        StreamError, RedisUnavailable: as `EventLogReader` does.
    """
    async for events in reader:
        if events:
            return events
    if not reader.position:
        raise StreamEndedEmpty("The stream ended before its first event; send the request again.")
    return ()


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def keep_alive_seconds() -> float:
    return float(settings.STREAM_KEEPALIVE_SECONDS)


def encode_interruption(
    context: ResponseContext, wire: WireFormat, error: Exception, *, name: str | None = None
) -> bytes:
    """Return a frame that says, in a wire format, that sending stops here.

    It is not an event of the stream and has no number, so a client that reconnects misses nothing.
    """
    problem = to_problem(error)
    _log_problem(context, problem, error)
    if name is None:
        name = "" if wire is WireFormat.OPENAI else "error"
    return encode_unnumbered_frame(name, encode_error(wire, problem, context.http_request.request_id))


def _to_sse_frames(stream_id: str, events: Sequence[LoggedEvent], retry_milliseconds: int | None = None) -> bytes:
    if not events:
        return b""
    frames = [(event.name, event.data) for event in events]
    return encode_frames(stream_id, events[0].seq, frames, retry_milliseconds=retry_milliseconds)


def _error_headers(problem: ApiProblem) -> Headers:
    return [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]


def _log_problem(context: ResponseContext, problem: ApiProblem, error: BaseException) -> None:
    facts = {"method": context.http_request.method, "path": context.http_request.path[:200], "status": problem.status}
    facts["code"] = problem.code
    if problem.status >= 500:
        traceback = error if problem.is_unexpected else None
        log.error("live_request_failed", error=type(error).__name__, exc_info=traceback, **facts)
    else:
        log.warning("live_request_rejected", **facts)


def _rate_limit_headers(wire: WireFormat, quotas: Sequence[RemainingQuota]) -> Headers:
    """Report, for requests and for tokens, the window that is nearest to its limit."""
    headers: Headers = []
    for unit in ("requests", "tokens"):
        of_unit = [quota for quota in quotas if quota.window.unit == unit]
        if of_unit:
            nearest = min(of_unit, key=lambda quota: quota.remaining / max(quota.window.limit, 1))
            headers += (
                _anthropic_rate_headers(unit, nearest)
                if wire is WireFormat.ANTHROPIC
                else _openai_rate_headers(unit, nearest)
            )
    return headers


def _openai_rate_headers(unit: str, quota: RemainingQuota) -> Headers:
    name = unit.encode()
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % quota.window.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % quota.remaining),
        (b"x-ratelimit-reset-" + name, format_go_duration(quota.reset_seconds).encode()),
    ]


def _anthropic_rate_headers(unit: str, quota: RemainingQuota) -> Headers:
    name = unit.encode()
    reset = (clock.now() + timedelta(seconds=math.ceil(quota.reset_seconds))).astimezone(UTC)
    return [
        (b"anthropic-ratelimit-%b-limit" % name, b"%d" % quota.window.limit),
        (b"anthropic-ratelimit-%b-remaining" % name, b"%d" % quota.remaining),
        (b"anthropic-ratelimit-%b-reset" % name, _rfc3339(reset).encode()),
    ]


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_go_duration(seconds: float) -> str:
    """Write a duration as OpenAI does (docs/reference/wire-formats.md, 1.1): `12ms`, `8.64s`, `6m0s`, `1h0m2s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 100) / 100:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"

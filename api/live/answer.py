"""How an answer is written: its headers, a whole body, a stream of events, an error in the caller's dialect."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings

from api.errors import Problem, problem_of
from api.live.asked import Asked
from api.live.edges import Wire, encode_error, status_for
from api.live.request import Headers, Reply
from core import clock, metrics
from providers.dialects.sse_writer import KEEP_ALIVE, to_sse, to_unnumbered
from streams.entries import About, Event
from streams.errors import NeverBegan
from streams.follow import Following
from tenants import origins
from tenants.admission.windows import Left

log = structlog.get_logger(__name__)

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
#: No proxy on the way keeps, packs or holds back a stream.
STREAM_HEADERS: Headers = [
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache, no-transform, no-store"),
    (b"x-accel-buffering", b"no"),
]
RETRY_MILLISECONDS = 1000


@dataclass(slots=True)
class Course:
    """What is known of a request on its way, as far as its answer's headers tell it."""

    asked: Asked
    route: str
    wire: Wire = Wire.OPENAI
    #: The origin whose pages may read the answer.
    origin: str | None = None
    left: tuple[Left, ...] = ()
    #: Time spent waiting for providers.
    upstream_seconds: float = 0.0
    cached: str | None = None
    #: Headers of this answer alone.
    extra: Headers = field(default_factory=list)

    def headers(self) -> Headers:
        """Return what every answer carries. Call it when the answer begins."""
        overhead = max(time.perf_counter() - self.asked.started_at - self.upstream_seconds, 0.0)
        metrics.of_route(self.route).overhead_seconds.observe(overhead)
        milliseconds, upstream = overhead * 1000, self.upstream_seconds * 1000
        request_id = self.asked.request_id.encode()
        headers = [
            (b"x-request-id", request_id),
            (b"x-nightdesk-overhead-ms", b"%.2f" % milliseconds),
            (b"server-timing", b"desk;dur=%.2f, upstream;dur=%.2f" % (milliseconds, upstream)),
            *origins.answer_headers(self.origin),
            *_rates(self.wire, self.left),
            *self.extra,
        ]
        if self.wire is Wire.ANTHROPIC:
            headers.append((b"request-id", request_id))
        if self.cached:
            headers.append((b"x-cache", self.cached.encode()))
        client_id = self.asked.headers.get("x-client-request-id", "")
        if client_id.isascii() and client_id.isprintable() and 0 < len(client_id) <= 128:
            headers.append((b"x-client-request-id", client_id.encode()))
        return headers

    def done(self, status: int) -> None:
        """Count the answer."""
        metrics.answers(self.route, status).inc()
        metrics.of_route(self.route).seconds.observe(time.perf_counter() - self.asked.started_at)


async def send_body(course: Course, reply: Reply, body: bytes, status: int = 200, content_type: str = JSON) -> None:
    """Send a whole answer."""
    headers = [*course.headers(), (b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    await reply.answer(status, headers, body)
    course.done(status)


async def send_error(course: Course, reply: Reply, error: BaseException) -> None:
    """Say what went wrong, in the caller's dialect."""
    problem = problem_of(error)
    _log(course, problem, error)
    course.extra += _problem_headers(problem)
    body = encode_error(course.wire, problem, course.asked.request_id)
    await send_body(course, reply, body, status_for(course.wire, problem))


async def send_whole(course: Course, reply: Reply, about: About, events: Sequence[Event]) -> None:
    """Send what never became a stream: a whole answer, or an error before the first token."""
    if about.retry_after_seconds is not None:
        course.extra.append((b"retry-after", b"%d" % about.retry_after_seconds))
    await send_body(course, reply, b"".join(event.data for event in events), about.status)


async def send_events(course: Course, reply: Reply, following: Following, events: Sequence[Event]) -> None:
    """Send a stream from these events on, until it ends or its reader is gone."""
    await reply.begin(200, [*course.headers(), *STREAM_HEADERS])
    metrics.of_route(course.route).first_byte_seconds.observe(time.perf_counter() - course.asked.started_at)
    stream_id = following.about.id
    await reply.write(_sse(stream_id, events, retry_milliseconds=RETRY_MILLISECONDS))
    last_words = b""
    try:
        async for more in following:
            await reply.write(_sse(stream_id, more) if more else KEEP_ALIVE)
    except Exception as error:  # whatever it is, the reader must neither wait for ever nor take this for an end
        last_words = say_broken_off(course, Wire(following.about.dialect), error)
    await reply.write(last_words, more=False)
    course.done(200)


async def first_events(following: Following) -> Sequence[Event]:
    """Wait for the beginning of a stream: what its answer's status is, is known with it. None: the reader has all.

    Raises:
        NeverBegan: it ended without any. To answer with nothing would look like a whole answer.
        StreamError, RedisAway: as `Following` does.
    """
    async for events in following:
        if events:
            return events
    if not following.position:
        raise NeverBegan("The stream was ended before its first event; ask anew.")
    return ()


def keep_alive_seconds() -> float:
    return float(settings.STREAM_KEEPALIVE_SECONDS)


def say_broken_off(course: Course, wire: Wire, error: Exception, *, name: str | None = None) -> bytes:
    """Say in a dialect that a stream breaks off here. No event of the stream: whoever comes back lacks nothing."""
    problem = problem_of(error)
    _log(course, problem, error)
    if name is None:
        name = "" if wire is Wire.OPENAI else "error"
    return to_unnumbered(name, encode_error(wire, problem, course.asked.request_id))


def _sse(stream_id: str, events: Sequence[Event], retry_milliseconds: int | None = None) -> bytes:
    if not events:
        return b""
    frames = [(event.name, event.data) for event in events]
    return to_sse(stream_id, events[0].seq, frames, retry_milliseconds=retry_milliseconds)


def _problem_headers(problem: Problem) -> Headers:
    headers: Headers = []
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after_seconds))
    return headers


def _log(course: Course, problem: Problem, error: BaseException) -> None:
    facts = {"method": course.asked.method, "path": course.asked.path[:200], "status": problem.status}
    facts["code"] = problem.code
    if problem.status >= 500:
        is_ours = problem.code == "internal_error"
        log.error("live_failed", error=type(error).__name__, exc_info=error if is_ours else None, **facts)
    else:
        log.warning("live_refused", **facts)


def _rates(wire: Wire, left: Sequence[Left]) -> Headers:
    """Tell of the window of each unit that is nearest to its limit."""
    headers: Headers = []
    for unit in ("requests", "tokens"):
        of_unit = [each for each in left if each.window.unit == unit]
        if of_unit:
            nearest = min(of_unit, key=lambda each: each.remaining / max(each.window.limit, 1))
            headers += _anthropic_rate(unit, nearest) if wire is Wire.ANTHROPIC else _openai_rate(unit, nearest)
    return headers


def _openai_rate(unit: str, left: Left) -> Headers:
    name = unit.encode()
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % left.window.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % left.remaining),
        (b"x-ratelimit-reset-" + name, go_duration(left.reset_seconds).encode()),
    ]


def _anthropic_rate(unit: str, left: Left) -> Headers:
    name = unit.encode()
    reset = (clock.now() + timedelta(seconds=math.ceil(left.reset_seconds))).astimezone(UTC)
    return [
        (b"anthropic-ratelimit-%b-limit" % name, b"%d" % left.window.limit),
        (b"anthropic-ratelimit-%b-remaining" % name, b"%d" % left.remaining),
        (b"anthropic-ratelimit-%b-reset" % name, _rfc3339(reset).encode()),
    ]


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def go_duration(seconds: float) -> str:
    """Write a duration as OpenAI does (wire formats, 1.1): `12ms`, `8.64s`, `6m0s`, `1h0m2s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 100) / 100:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"

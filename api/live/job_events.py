"""A job as it goes: its states from Postgres, and while somebody looks on, its tokens from the worker's stream."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import structlog

from api.live.answer import RETRY_MILLISECONDS, STREAM_HEADERS, Course, keep_alive_seconds, say_broken_off
from api.live.asked import Asked
from api.live.desk import LiveDesk, live_desk
from api.live.infer import answered
from api.live.job_states import Watched
from api.live.request import Reply
from api.live.streams import cursor_of
from api.live.who import Known, use_up
from core import metrics
from core.redis import RedisAway
from jobs.audience import stream_of
from jobs.models import JobState
from jobs.read import Standing, find_job, raw_result_of
from providers.dialects.sse_writer import KEEP_ALIVE, to_sse
from streams.entries import End, EndKind, Event
from streams.errors import StreamError
from streams.follow import follow
from tenants.limits import check_place
from tenants.live_proof import prove_reader
from tenants.models import Site
from tenants.origins import allowed_origin
from tenants.tickets import Readable

log = structlog.get_logger(__name__)

#: Events are numbered through all attempts: the attempt, and the number in its stream.
STRIDE = 1_000_000_000
#: The number of a whole answer.
WHOLE = STRIDE - 1
ENDS: Mapping[str, EndKind] = {JobState.SUCCEEDED: "done", JobState.CANCELED: "canceled"}


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a job. A state has no number: it is told anew to everybody who comes."""

    name: str
    data: bytes
    seq: int = 0


class JobReading:
    """One reader's place in a job."""

    def __init__(self, desk: LiveDesk, site: Site, public_id: str, after: int) -> None:
        self._desk = desk
        self._site = site
        self._public_id = public_id
        #: The last event that the reader has.
        self._attempt, self._seq = divmod(after, STRIDE)
        #: The attempt whose stream was read to its end, however that was.
        self._read_out = 0
        self._is_whole = False
        self._told_at = time.monotonic()
        #: How it ended, once all was told; None where this process stopped before.
        self.end: EndKind | None = None

    async def events(self) -> AsyncGenerator[Sequence[Told], None]:
        """Yield what happens until the job is over; nothing, now and then, while nothing does.

        Ends early when this process is about to stop: the reader goes on at another. Raises `JobNotFound`.
        """
        told: Standing | None = None
        async with self._desk.job_states.watch(self._site, self._public_id) as watched:
            while not self._desk.is_draining:
                standing = watched.standing
                if standing.is_over:
                    async with aclosing(self._end(watched)) as last:
                        async for events in last:
                            yield events
                    yield [_state(self._public_id, standing)]
                    self.end = ENDS.get(standing.state, "error")
                    return
                if standing != told:
                    told = standing
                    yield [_state(self._public_id, standing)]
                if standing.state == JobState.RUNNING:
                    async with aclosing(self._attempt_of(watched, standing.attempt)) as attempt:
                        async for events in attempt:
                            yield events
                if await self._is_quiet():
                    yield []

    async def _attempt_of(self, watched: Watched, number: int) -> AsyncGenerator[Sequence[Told], None]:
        """Yield what an attempt says, as far as its worker writes it down yet."""
        if self._read_out == number:
            return
        after = self._seq if self._attempt == number else 0
        following = follow(
            self._desk.server,
            stream_of(watched.job_id, number),
            after,
            site=self._site.public_id,
            idle_seconds=keep_alive_seconds(),
        )
        try:
            async with following:
                if self._attempt not in (0, number):
                    yield [Told("restart", msgspec.json.encode({"attempt": number}))]
                async for events in following:
                    yield self._take(number, events)
                    if self._desk.is_draining:
                        return
            # An answer that was asked for as a whole leaves a stream without an event, which tells nothing of it.
            has_told = self._attempt == number and self._seq > 0
            self._read_out, self._is_whole = number, has_told and following.end == End("done")
        except StreamError:
            # It is not there yet, or no more. Where the process that wrote it is gone, Postgres says how it goes on.
            return
        except RedisAway as error:
            log.warning("job_stream_away", error=str(error))

    def _take(self, number: int, events: Sequence[Event]) -> Sequence[Told]:
        self._told_at = time.monotonic()
        if events:
            self._attempt, self._seq = number, events[-1].seq
        return [Told(event.name, event.data, number * STRIDE + event.seq) for event in events]

    async def _end(self, watched: Watched) -> AsyncGenerator[Sequence[Told], None]:
        """Yield what the reader lacks of the answer: the rest of the stream that it has read, or the whole answer."""
        number = watched.standing.attempt
        if watched.standing.state != JobState.SUCCEEDED or (self._attempt, self._seq) == (number, WHOLE):
            return
        if self._attempt == number and self._seq:
            async with aclosing(self._attempt_of(watched, number)) as rest:
                async for events in rest:
                    yield events
        if not (self._is_whole and self._read_out == number):
            job = await self._desk.threads.run(find_job, self._site, self._public_id)
            if result := raw_result_of(job):
                yield [Told("answer", result, number * STRIDE + WHOLE)]

    async def _is_quiet(self) -> bool:
        """Wait for news. True when there has been nothing to tell for long."""
        looking = asyncio.ensure_future(self._desk.job_states.next_look())
        try:
            await asyncio.wait({looking}, timeout=keep_alive_seconds())
        finally:
            looking.cancel()
        if time.monotonic() - self._told_at < keep_alive_seconds():
            return False
        self._told_at = time.monotonic()
        return True


def _state(public_id: str, standing: Standing) -> Told:
    error = {"code": standing.error_code, "message": standing.error_message} if standing.error_code else None
    told = {"id": public_id, "state": standing.state, "attempt": standing.attempt, "error": error}
    return Told("state", msgspec.json.encode(told))


async def read_job(asked: Asked, reply: Reply, public_id: str) -> None:
    """`GET /v1/jobs/{id}/events`: the job's states, and its tokens as they come."""
    await answered(Course(asked, "job_events"), reply, lambda course, r: _read(course, r, public_id))


async def _read(course: Course, reply: Reply, public_id: str) -> None:
    asked, desk = course.asked, await live_desk()
    reader = await prove_reader(asked.presented(), Readable.JOB, public_id, origin=asked.origin, threads=desk.threads)
    course.origin = allowed_origin(asked.headers.get("origin"), reader.site, reader.origin)
    if reader.proven is not None:
        check_place(reader.proven.identity, asked.address, asked.origin)
        await use_up(desk, Known(reader.proven.identity, reader.proven.nonce))
    reading = JobReading(desk, reader.site, public_id, cursor_of(asked, public_id))
    async with aclosing(reading.events()) as events:
        # What is wrong is known with the first event, which is there at once.
        first: Sequence[Told] = await anext(events, [])
        await reply.begin(200, [*course.headers(), *STREAM_HEADERS])
        metrics.of_route(course.route).first_byte_seconds.observe(time.perf_counter() - asked.started_at)
        await reply.write(b"retry: %d\n" % RETRY_MILLISECONDS + _to_sse(public_id, first))
        last_words = b""
        try:
            async for more in events:
                await reply.write(_to_sse(public_id, more) if more else KEEP_ALIVE)
        except Exception as error:  # as of a stream: nobody is to wait for ever
            last_words = say_broken_off(course, course.wire, error, name="error")
    await reply.write(last_words, more=False)
    course.done(200)


def _to_sse(public_id: str, told: Sequence[Told]) -> bytes:
    return b"".join(
        to_sse(public_id, each.seq, [(each.name, each.data)])
        if each.seq
        else b"event: %b\ndata: %b\n\n" % (each.name.encode(), each.data)
        for each in told
    )

"""Follows a job: its states from Postgres, and its tokens from the worker's stream while the job has a reader."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import structlog

from api.live.authenticate import authenticate_event_reader
from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.infer import with_error_response
from api.live.job_state_poller import WatchedJob, job_state_poller
from api.live.respond import (
    RETRY_MILLISECONDS,
    STREAM_HEADERS,
    ResponseContext,
    encode_interruption,
    keep_alive_seconds,
)
from api.live.stream_endpoints import cursor_of
from core import metrics
from core.redis import RedisUnavailable
from jobs.models import JobState
from jobs.read import JobProgress, find_job, raw_result_of
from jobs.watchers import attempt_stream_id
from live.runtime import LiveRuntime, live_runtime
from providers.sse_writer import KEEP_ALIVE, encode_frames
from streams.entries import LoggedEvent, StreamEnd, StreamEndKind
from streams.errors import StreamError
from streams.reader import follow
from tenants.models import Site
from tenants.tickets import ReadableKind

log = structlog.get_logger(__name__)

#: The sequence number of an event is the attempt times this, plus the number in the attempt's stream.
ATTEMPT_STRIDE = 1_000_000_000
#: The number, within its attempt, of a complete answer.
COMPLETE_ANSWER_SEQ = ATTEMPT_STRIDE - 1
END_KINDS: Mapping[str, StreamEndKind] = {JobState.SUCCEEDED: "done", JobState.CANCELED: "canceled"}


@dataclass(frozen=True, slots=True)
class JobStreamEvent:
    """One event of a job. A state has no sequence number: every new reader gets the current one."""

    name: str
    data: bytes
    seq: int = 0


class JobEventReader:
    """One reader's position in a job's events."""

    def __init__(self, runtime: LiveRuntime, site: Site, public_id: str, after: int) -> None:
        self._runtime = runtime
        self._poller = job_state_poller(runtime)
        self._site = site
        self._public_id = public_id
        #: The last event that the reader has: its attempt, and its number in the attempt's stream.
        self._attempt, self._seq = divmod(after, ATTEMPT_STRIDE)
        #: The attempt whose stream was read to its end, with or without success.
        self._finished_attempt = 0
        self._is_complete = False
        self._last_sent_at = time.monotonic()
        #: How the job ended, once everything was sent; None if this process shut down before.
        self.end: StreamEndKind | None = None

    async def events(self) -> AsyncGenerator[Sequence[JobStreamEvent], None]:
        """Yield events until the job ends; an empty list is a keep-alive.

        Ends early when this process shuts down: the reader resumes at another one. Raises `JobNotFound`.
        """
        sent: JobProgress | None = None
        async with self._poller.watch(self._site, self._public_id) as watched:
            while not self._runtime.is_draining:
                progress = watched.progress
                if progress.is_terminal:
                    async with aclosing(self._final_events(watched)) as last:
                        async for events in last:
                            yield events
                    yield [_state_event(self._public_id, progress)]
                    self.end = END_KINDS.get(progress.state, "error")
                    return
                if progress != sent:
                    sent = progress
                    yield [_state_event(self._public_id, progress)]
                if progress.state == JobState.RUNNING:
                    async with aclosing(self._attempt_events(watched, progress.attempt)) as attempt:
                        async for events in attempt:
                            yield events
                if await self._needs_keep_alive():
                    yield []

    async def _attempt_events(self, watched: WatchedJob, number: int) -> AsyncGenerator[Sequence[JobStreamEvent], None]:
        """Yield the events of an attempt's stream, if its worker writes one."""
        if self._finished_attempt == number:
            return
        after = self._seq if self._attempt == number else 0
        reader = follow(
            self._runtime.process_streams,
            attempt_stream_id(watched.job_id, number),
            after,
            site=self._site.public_id,
            idle_seconds=keep_alive_seconds(),
        )
        try:
            async with reader:
                if self._attempt not in (0, number):
                    yield [JobStreamEvent("restart", msgspec.json.encode({"attempt": number}))]
                async for events in reader:
                    yield self._record_position(number, events)
                    if self._runtime.is_draining:
                        return
            # A non-streaming answer leaves a stream without events, which says nothing about the answer.
            has_sent = self._attempt == number and self._seq > 0
            self._finished_attempt, self._is_complete = number, has_sent and reader.end == StreamEnd("done")
        except StreamError:
            # The stream does not exist yet, or no more. If its worker died, Postgres has the next state of the job.
            return
        except RedisUnavailable as error:
            log.warning("job_stream_redis_unavailable", error=str(error))

    def _record_position(self, number: int, events: Sequence[LoggedEvent]) -> Sequence[JobStreamEvent]:
        self._last_sent_at = time.monotonic()
        if events:
            self._attempt, self._seq = number, events[-1].seq
        return [JobStreamEvent(event.name, event.data, number * ATTEMPT_STRIDE + event.seq) for event in events]

    async def _final_events(self, watched: WatchedJob) -> AsyncGenerator[Sequence[JobStreamEvent], None]:
        """Yield what the reader lacks of the answer: the rest of a stream, or the complete answer."""
        number = watched.progress.attempt
        if watched.progress.state != JobState.SUCCEEDED or (self._attempt, self._seq) == (number, COMPLETE_ANSWER_SEQ):
            return
        if self._attempt == number and self._seq:
            async with aclosing(self._attempt_events(watched, number)) as rest:
                async for events in rest:
                    yield events
        if not (self._is_complete and self._finished_attempt == number):
            job = await self._runtime.threads.run(find_job, self._site, self._public_id)
            if result := raw_result_of(job):
                yield [JobStreamEvent("answer", result, number * ATTEMPT_STRIDE + COMPLETE_ANSWER_SEQ)]

    async def _needs_keep_alive(self) -> bool:
        """Wait for the next poll. True if nothing was sent for the keep-alive time."""
        next_poll = asyncio.ensure_future(self._poller.wait_for_poll())
        try:
            await asyncio.wait({next_poll}, timeout=keep_alive_seconds())
        finally:
            next_poll.cancel()
        if time.monotonic() - self._last_sent_at < keep_alive_seconds():
            return False
        self._last_sent_at = time.monotonic()
        return True


def _state_event(public_id: str, progress: JobProgress) -> JobStreamEvent:
    error = {"code": progress.error_code, "message": progress.error_message} if progress.error_code else None
    body = {"id": public_id, "state": progress.state, "attempt": progress.attempt, "error": error}
    return JobStreamEvent("state", msgspec.json.encode(body))


async def read_job(http_request: LiveHttpRequest, response: LiveHttpResponse, job_id: str) -> None:
    """`GET /v1/jobs/{id}/events`: the job's states, and its tokens as they arrive."""
    await with_error_response(
        ResponseContext(http_request, "job_events"), response, lambda context, r: _read(context, r, job_id)
    )


async def _read(context: ResponseContext, response: LiveHttpResponse, public_id: str) -> None:
    http_request, runtime = context.http_request, await live_runtime()
    authorized = await authenticate_event_reader(context, runtime, ReadableKind.JOB, public_id)
    reader = JobEventReader(runtime, authorized.site, public_id, cursor_of(http_request, public_id))
    async with aclosing(reader.events()) as events:
        # Errors come with the first event, which is immediate.
        first: Sequence[JobStreamEvent] = await anext(events, [])
        await response.start(200, [*context.headers(), *STREAM_HEADERS])
        metrics.route_metrics(context.route).first_byte_seconds.observe(time.perf_counter() - http_request.started_at)
        await response.write(b"retry: %d\n" % RETRY_MILLISECONDS + _to_sse(public_id, first))
        final_frame = b""
        try:
            async for more in events:
                await response.write(_to_sse(public_id, more) if more else KEEP_ALIVE)
        except Exception as error:  # as with a stream, the client must not wait forever
            final_frame = encode_interruption(context, context.wire, error, name="error")
    await response.write(final_frame, more=False)
    context.record_response(200)


def _to_sse(public_id: str, events: Sequence[JobStreamEvent]) -> bytes:
    return b"".join(
        encode_frames(public_id, event.seq, [(event.name, event.data)])
        if event.seq
        else b"event: %b\ndata: %b\n\n" % (event.name.encode(), event.data)
        for event in events
    )

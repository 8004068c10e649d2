"""What one WebSocket has under way: streams that it started or follows, each under a name of the client's."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from django.conf import settings

from api.errors import TooManyAtOnce, problem_of
from api.live.answer import JSON, first_events
from api.live.begin import PATIENCE_SECONDS
from api.live.desk import LiveDesk
from api.live.infer import open_stream
from api.live.job_events import JobReading, Told
from api.live.socket_line import Line, LineClosed
from api.live.socket_party import Party
from api.live.socket_words import (
    Cancel,
    Canceled,
    Ended,
    EventCame,
    Failure,
    Follow,
    Following,
    Leave,
    Start,
    Started,
    data_of,
    error_of,
    write,
)
from api.live.who import check_own
from core import metrics
from providers.dialects.errors import InvalidRequest
from streams.entries import About, Event
from streams.follow import Following as Reading
from streams.follow import find_record, follow, request_cancel
from tenants.tickets import Readable

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Ref:
    """One stream or job that is followed, or about to be."""

    name: str
    task: "asyncio.Task[None] | None" = None
    #: Known once it is open: the client has been told so.
    stream: str | None = None
    job: str | None = None
    is_open: bool = False
    #: It was started here, so who is here may cancel it.
    is_own: bool = False
    is_to_be_canceled: bool = False
    #: The last event that was sent.
    seq: int = 0


class Work:
    """Of one connection, whose party is known."""

    def __init__(self, desk: LiveDesk, line: Line, party: Party) -> None:
        self.party = party
        self._desk = desk
        self._line = line
        self._refs: dict[str, Ref] = {}
        #: When something was last under way here.
        self.ended_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._refs)

    def start(self, said: Start) -> None:
        """Begin a stream and follow it. Raises `InvalidRequest` and `TooManyAtOnce`."""
        self._begin(said.ref, lambda ref: self._start(ref, said))

    def follow(self, said: Follow) -> None:
        """Follow a stream or a job. Raises `InvalidRequest` and `TooManyAtOnce`."""
        match said:
            case Follow(stream=str(stream_id), job=None):
                self._begin(said.ref, lambda ref: self._follow(ref, stream_id, said.after))
            case Follow(stream=None, job=str(job_id)):
                self._begin(said.ref, lambda ref: self._follow_job(ref, job_id, said.after))
            case _:
                raise InvalidRequest("Name one stream or one job to follow.", "stream", "invalid_value")

    async def leave(self, said: Leave) -> None:
        """Follow it no longer. Raises `InvalidRequest`."""
        ref = self._get(said.ref)
        if ref.task is not None:
            ref.task.cancel()
            await asyncio.gather(ref.task, return_exceptions=True)
        if self._refs.get(ref.name) is ref:
            await self._end(ref, "left")

    async def cancel(self, said: Cancel) -> None:
        """Close a stream's call upstream. Raises `InvalidRequest`, `StreamUnknown`, `RedisAway` and `Forbidden`."""
        match said:
            case Cancel(ref=str(name), stream=None):
                ref = self._get(name)
                if ref.job is not None:
                    raise InvalidRequest("Cancel a job by POST /v1/jobs/{id}/cancel.", "ref", "invalid_value")
                ref.is_to_be_canceled = True
                if ref.stream is not None:
                    await self._cancel(ref.stream, ref)
            case Cancel(ref=None, stream=str(stream_id)):
                await self._cancel(stream_id, None)
            case _:
                raise InvalidRequest("Name what is to be canceled: a ref or a stream.", "ref", "invalid_value")

    async def close(self) -> None:
        """Leave everything. What nobody else reads is canceled after a while."""
        tasks = [ref.task for ref in self._refs.values() if ref.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Refs

    def _begin(self, name: str, work: Callable[[Ref], Awaitable[None]]) -> None:
        if name in self._refs:
            raise InvalidRequest(f"The ref {name!r} is in use; take another.", "ref", "ref_in_use")
        if len(self._refs) >= settings.SOCKET_STREAMS:
            raise TooManyAtOnce(
                f"This connection follows {len(self._refs)} streams and jobs, as many as it may at once.", 1.0
            )
        ref = self._refs[name] = Ref(name)
        ref.task = asyncio.create_task(self._run(ref, work), name=f"socket ref {name}")

    def _get(self, name: str) -> Ref:
        if (ref := self._refs.get(name)) is None:
            raise InvalidRequest(f"Nothing is under way as {name!r}.", "ref", "ref_unknown")
        return ref

    async def _run(self, ref: Ref, work: Callable[[Ref], Awaitable[None]]) -> None:
        """Do the work; whatever goes wrong with it is told, and ends nothing else."""
        try:
            await work(ref)
        except LineClosed:
            self._drop(ref)
        except Exception as error:  # the outermost of a ref: the client is told, and the log the reason
            await self._fail(ref, error)

    async def _fail(self, ref: Ref, error: Exception) -> None:
        problem = problem_of(error)
        is_ours = problem.code == "internal_error"
        tell = log.error if is_ours else log.warning
        tell("socket_ref_failed", status=problem.status, code=problem.code, exc_info=error if is_ours else None)
        told = error_of(problem, self.party.asked.request_id)
        try:
            if ref.is_open:
                await self._end(ref, "error", status=problem.status, error=told)
            else:
                self._drop(ref)
                await self._line.tell(Failure(ref=ref.name, error=told))
        except LineClosed:
            return

    async def _end(self, ref: Ref, kind: str, **more: Any) -> None:
        # Out of the way first: who reads this may take the name again.
        self._drop(ref)
        await self._line.tell(Ended(ref=ref.name, kind=kind, seq=ref.seq, **more))

    def _drop(self, ref: Ref) -> None:
        if self._refs.pop(ref.name, None) is not None:
            self.ended_at = time.monotonic()

    # Streams

    async def _start(self, ref: Ref, said: Start) -> None:
        known = await self.party.starter(self._desk)
        asked = self.party.asking(said)
        with structlog.contextvars.bound_contextvars(request_id=asked.request_id):
            opened = await open_stream(self._desk, known, asked, said.dialect, detached=False)
        metrics.answers("socket_start", 200).inc()
        patience = PATIENCE_SECONDS if opened.is_replayed else 0
        reading = follow(self._desk.server, opened.stream_id, 0, site=known.site, patience_seconds=patience)
        async with reading:
            ref.is_own = True
            started = Started(
                ref=ref.name, stream=opened.stream_id, request_id=asked.request_id, replayed=opened.is_replayed
            )
            await self._line.tell(started)
            await self._read(ref, reading, opened.stream_id, known.site)

    async def _follow(self, ref: Ref, stream_id: str, after: int) -> None:
        reader = await self.party.reader(self._desk, Readable.STREAM, stream_id)
        site = reader.site.public_id
        async with follow(self._desk.server, stream_id, after, site=site) as reading:
            check_own(reading.about, reader.identity)
            ref.seq = after
            await self._line.tell(Following(ref=ref.name, stream=stream_id))
            await self._read(ref, reading, stream_id, site)

    async def _read(self, ref: Ref, reading: Reading, stream_id: str, site: str) -> None:
        """Pass a stream on, once its client has been told that it is open."""
        ref.stream, ref.is_open = stream_id, True
        if ref.is_to_be_canceled:
            await self._cancel(stream_id, ref)
        events = await first_events(reading)
        about = reading.about if reading.about.status else (await self._record(stream_id, site))
        if events and about.content_type == JSON and about.status >= 400:
            # It never became a stream: an error before the first token, with a status of its own.
            ref.seq = events[-1].seq
            await self._end(ref, "error", status=about.status, error=_error_in(events))
            return
        await self._line.pass_on(_texts(ref, events))
        async for more in reading:
            await self._line.pass_on(_texts(ref, more))
        await self._end(ref, reading.end.kind if reading.end else "error")

    # Jobs

    async def _follow_job(self, ref: Ref, job_id: str, after: int) -> None:
        site = (await self.party.reader(self._desk, Readable.JOB, job_id)).site
        ref.job, ref.seq = job_id, after
        reading = JobReading(self._desk, site, job_id, after)
        async with aclosing(reading.events()) as events:
            async for told in events:
                if not ref.is_open:
                    ref.is_open = True
                    await self._line.tell(Following(ref=ref.name, job=job_id))
                await self._line.pass_on(_words(ref, told))
        if reading.end:
            await self._end(ref, reading.end)

    async def _record(self, stream_id: str, site: str) -> About:
        return (await find_record(self._desk.server, stream_id, site=site)).about

    async def _cancel(self, stream_id: str, ref: Ref | None) -> None:
        is_own = ref is not None and ref.is_own
        identity = await self.party.canceler(self._desk, is_own=is_own)
        site = identity.site.public_id
        if not is_own:
            check_own(await self._record(stream_id, site), identity)
        was_running = await request_cancel(self._desk.server, stream_id, site=site)
        named = msgspec.UNSET if ref is None else ref.name
        await self._line.tell(Canceled(stream=stream_id, was_running=was_running, ref=named))


def _texts(ref: Ref, events: Sequence[Event]) -> Iterator[str]:
    """Write events down one by one, each once the one before has been sent."""
    for event in events:
        yield write(EventCame(ref=ref.name, seq=event.seq, event=event.name, data=data_of(event.data)))
        ref.seq = event.seq


def _words(ref: Ref, told: Sequence[Told]) -> Iterator[str]:
    """Write a job's events down; those without a number are states."""
    for each in told:
        yield write(EventCame(ref=ref.name, seq=each.seq, event=each.name, data=data_of(each.data)))
        ref.seq = each.seq or ref.seq


def _error_in(events: Sequence[Event]) -> Any:
    """Take the error out of its dialect's body."""
    body = msgspec.json.decode(b"".join(event.data for event in events), type=dict[str, Any])
    return body.get("error", body)

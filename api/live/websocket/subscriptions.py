"""The subscriptions of one WebSocket: streams that it started, and streams and jobs that it follows.

Each has a `ref`, the client's name for it, and a task that reads the events and sends them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from django.conf import settings

from api.errors import to_problem
from api.live.authenticate import check_stream_access
from api.live.infer import open_stream
from api.live.job_events import JobEventReader, JobStreamEvent
from api.live.respond import JSON, wait_for_first_events
from api.live.websocket.caller import WebSocketCaller
from api.live.websocket.messages import (
    CanceledMessage,
    CancelMessage,
    EndMessage,
    ErrorMessage,
    EventMessage,
    FollowingMessage,
    FollowMessage,
    LeaveMessage,
    StartedMessage,
    StartMessage,
    encode_message,
    error_body,
    event_data,
)
from api.live.websocket.sender import WebSocketClosed, WebSocketSender
from core import metrics
from core.tasks import cancel_and_wait
from live.admit import STREAM_START_TIMEOUT_SECONDS
from live.errors import ConcurrencyLimitExceeded
from live.runtime import LiveRuntime
from providers.invalid_request import InvalidRequest
from streams.entries import LoggedEvent, StreamInfo
from streams.reader import EventLogReader, find_record, follow, request_cancel
from tenants.tickets import ReadableKind

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class WebSocketSubscription:
    """One stream or job that the client follows, or is about to."""

    ref: str
    task: "asyncio.Task[None] | None" = None
    #: Set once it is open, when `started` or `following` has been sent.
    stream: str | None = None
    job: str | None = None
    is_open: bool = False
    #: It was started over this connection, which may therefore cancel it.
    is_own: bool = False
    cancel_requested: bool = False
    #: The last event that was sent.
    seq: int = 0


class WebSocketSubscriptions:
    """The subscriptions of one authenticated connection."""

    def __init__(self, runtime: LiveRuntime, sender: WebSocketSender, caller: WebSocketCaller) -> None:
        self.caller = caller
        self._runtime = runtime
        self._sender = sender
        self._by_ref: dict[str, WebSocketSubscription] = {}
        #: When the last subscription ended.
        self.ended_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._by_ref)

    def start(self, message: StartMessage) -> None:
        """Start a stream and follow it. Raises `InvalidRequest` and `ConcurrencyLimitExceeded`."""
        self._open(message.ref, lambda subscription: self._start(subscription, message))

    def follow(self, message: FollowMessage) -> None:
        """Follow a stream or a job. Raises `InvalidRequest` and `ConcurrencyLimitExceeded`."""
        match message:
            case FollowMessage(stream=str(stream_id), job=None):
                self._open(message.ref, lambda subscription: self._follow(subscription, stream_id, message.after))
            case FollowMessage(stream=None, job=str(job_id)):
                self._open(message.ref, lambda subscription: self._follow_job(subscription, job_id, message.after))
            case _:
                raise InvalidRequest("Name one stream or one job to follow.", "stream", "invalid_value")

    async def leave(self, message: LeaveMessage) -> None:
        """End a subscription. Raises `InvalidRequest`."""
        subscription = self._get(message.ref)
        await cancel_and_wait(subscription.task)
        if self._by_ref.get(subscription.ref) is subscription:
            await self._end(subscription, "left")

    async def cancel(self, message: CancelMessage) -> None:
        """Close a stream's call upstream. Raises `InvalidRequest`, `StreamUnknown`, `RedisUnavailable`, `Forbidden`."""
        match message:
            case CancelMessage(ref=str(ref), stream=None):
                subscription = self._get(ref)
                if subscription.job is not None:
                    raise InvalidRequest("Cancel a job by POST /v1/jobs/{id}/cancel.", "ref", "invalid_value")
                subscription.cancel_requested = True
                if subscription.stream is not None:
                    await self._cancel(subscription.stream, subscription)
            case CancelMessage(ref=None, stream=str(stream_id)):
                await self._cancel(stream_id, None)
            case _:
                raise InvalidRequest("Name one ref or one stream to cancel.", "ref", "invalid_value")

    async def close(self) -> None:
        """End all subscriptions. A stream without another reader is canceled after the grace time."""
        await cancel_and_wait(*(subscription.task for subscription in self._by_ref.values()))

    # The table of refs

    def _open(self, ref: str, work: Callable[[WebSocketSubscription], Awaitable[None]]) -> None:
        if ref in self._by_ref:
            raise InvalidRequest(f"The ref {ref!r} is already in use.", "ref", "ref_in_use")
        if len(self._by_ref) >= settings.WEBSOCKET_MAX_STREAMS:
            raise ConcurrencyLimitExceeded(
                f"This connection already follows {len(self._by_ref)} streams and jobs, its limit; leave one first.",
                1.0,
            )
        subscription = self._by_ref[ref] = WebSocketSubscription(ref)
        subscription.task = asyncio.create_task(self._run(subscription, work), name=f"socket ref {ref}")

    def _get(self, ref: str) -> WebSocketSubscription:
        if (subscription := self._by_ref.get(ref)) is None:
            raise InvalidRequest(f"No stream or job has the ref {ref!r}.", "ref", "ref_unknown")
        return subscription

    async def _run(
        self, subscription: WebSocketSubscription, work: Callable[[WebSocketSubscription], Awaitable[None]]
    ) -> None:
        """Run a subscription; an error in it is reported and ends no other."""
        try:
            await work(subscription)
        except WebSocketClosed:
            self._drop(subscription)
        except Exception as error:  # the outermost handler: the client gets the error, the log the traceback
            await self._fail(subscription, error)

    async def _fail(self, subscription: WebSocketSubscription, error: Exception) -> None:
        problem = to_problem(error)
        log_problem = log.error if problem.is_unexpected else log.warning
        log_problem(
            "websocket_subscription_failed",
            status=problem.status,
            code=problem.code,
            exc_info=error if problem.is_unexpected else None,
        )
        body = error_body(problem, self.caller.http_request.request_id)
        try:
            if subscription.is_open:
                await self._end(subscription, "error", status=problem.status, error=body)
            else:
                self._drop(subscription)
                await self._sender.send(ErrorMessage(ref=subscription.ref, error=body))
        except WebSocketClosed:
            return

    async def _end(self, subscription: WebSocketSubscription, kind: str, **more: Any) -> None:
        # First, because a client that gets this message may reuse the ref.
        self._drop(subscription)
        await self._sender.send(EndMessage(ref=subscription.ref, kind=kind, seq=subscription.seq, **more))

    def _drop(self, subscription: WebSocketSubscription) -> None:
        if self._by_ref.pop(subscription.ref, None) is not None:
            self.ended_at = time.monotonic()

    # Streams

    async def _start(self, subscription: WebSocketSubscription, message: StartMessage) -> None:
        caller = await self.caller.authorize_start(self._runtime)
        http_request = self.caller.to_http_request(message)
        with structlog.contextvars.bound_contextvars(request_id=http_request.request_id):
            opened = await open_stream(self._runtime, caller, http_request, message.dialect, detached=False)
        metrics.response_counter("websocket_start", 200).inc()
        patience = STREAM_START_TIMEOUT_SECONDS if opened.is_replayed else 0
        reader = follow(
            self._runtime.process_streams, opened.stream_id, 0, site=caller.site, start_timeout_seconds=patience
        )
        async with reader:
            subscription.is_own = True
            started = StartedMessage(
                ref=subscription.ref,
                stream=opened.stream_id,
                request_id=http_request.request_id,
                replayed=opened.is_replayed,
            )
            await self._sender.send(started)
            await self._read(subscription, reader, opened.stream_id, caller.site)

    async def _follow(self, subscription: WebSocketSubscription, stream_id: str, after: int) -> None:
        caller = await self.caller.authorize_read(self._runtime, ReadableKind.STREAM, stream_id)
        site = caller.site.public_id
        async with follow(self._runtime.process_streams, stream_id, after, site=site) as reader:
            check_stream_access(reader.info, caller.identity)
            subscription.seq = after
            await self._sender.send(FollowingMessage(ref=subscription.ref, stream=stream_id))
            await self._read(subscription, reader, stream_id, site)

    async def _read(
        self, subscription: WebSocketSubscription, reader: EventLogReader, stream_id: str, site: str
    ) -> None:
        """Send a stream's events. Its `started` or `following` has been sent."""
        subscription.stream, subscription.is_open = stream_id, True
        if subscription.cancel_requested:
            await self._cancel(stream_id, subscription)
        events = await wait_for_first_events(reader)
        about = reader.info if reader.info.status else (await self._stream_info(stream_id, site))
        if events and about.content_type == JSON and about.status >= 400:
            # An error before the first token, which has its own status.
            subscription.seq = events[-1].seq
            await self._end(subscription, "error", status=about.status, error=_error_in(events))
            return
        await self._sender.send_all(_stream_messages(subscription, events))
        async for more in reader:
            await self._sender.send_all(_stream_messages(subscription, more))
        await self._end(subscription, reader.end.kind if reader.end else "error")

    # Jobs

    async def _follow_job(self, subscription: WebSocketSubscription, job_id: str, after: int) -> None:
        site = (await self.caller.authorize_read(self._runtime, ReadableKind.JOB, job_id)).site
        subscription.job, subscription.seq = job_id, after
        reader = JobEventReader(self._runtime, site, job_id, after)
        async with aclosing(reader.events()) as events:
            async for burst in events:
                if not subscription.is_open:
                    subscription.is_open = True
                    await self._sender.send(FollowingMessage(ref=subscription.ref, job=job_id))
                await self._sender.send_all(_job_messages(subscription, burst))
        if reader.end:
            await self._end(subscription, reader.end)

    async def _stream_info(self, stream_id: str, site: str) -> StreamInfo:
        return (await find_record(self._runtime.process_streams, stream_id, site=site)).info

    async def _cancel(self, stream_id: str, subscription: WebSocketSubscription | None) -> None:
        is_own = subscription is not None and subscription.is_own
        identity = await self.caller.authorize_cancel(self._runtime, is_own=is_own)
        site = identity.site.public_id
        if not is_own:
            check_stream_access(await self._stream_info(stream_id, site), identity)
        was_running = await request_cancel(self._runtime.process_streams, stream_id, site=site)
        ref = msgspec.UNSET if subscription is None else subscription.ref
        await self._sender.send(CanceledMessage(stream=stream_id, was_running=was_running, ref=ref))


def _stream_messages(subscription: WebSocketSubscription, events: Sequence[LoggedEvent]) -> Iterator[str]:
    """Encode events lazily: each one when the one before has been sent."""
    for event in events:
        yield encode_message(
            EventMessage(ref=subscription.ref, seq=event.seq, event=event.name, data=event_data(event.data))
        )
        subscription.seq = event.seq


def _job_messages(subscription: WebSocketSubscription, events: Sequence[JobStreamEvent]) -> Iterator[str]:
    """Encode a job's events lazily; those without a number are states."""
    for event in events:
        yield encode_message(
            EventMessage(ref=subscription.ref, seq=event.seq, event=event.name, data=event_data(event.data))
        )
        subscription.seq = event.seq or subscription.seq


def _error_in(events: Sequence[LoggedEvent]) -> Any:
    """Return the error in a body of any wire format."""
    body = msgspec.json.decode(b"".join(event.data for event in events), type=dict[str, Any])
    return body.get("error", body)

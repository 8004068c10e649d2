"""Starts the task that writes an answer to the event log, where any number of readers, in any process, follow it.

A stream has two tasks. The writer task, started here, calls the provider and appends to the event log; it outlives the
request that started it. The reader task (`api.live`) follows the log with `streams.reader.follow`. They share only the
stream id. `live.run_stream` lists the steps of both.
"""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from core import clock
from inference.calls import CallTrace
from live.admit import AdmittedRequest
from live.errors import InterruptedByShutdown, LiveError, ResponseCanceled
from live.response_writer import ResponseWriter
from live.runtime import LiveRuntime
from live.settlement import spawn_settlement
from streams.buffer import LocalStream
from streams.entries import StreamInfo
from streams.errors import StreamsClosed
from streams.writer import EventLogWriter

#: Makes the writer that encodes for the caller's wire format and appends to this log.
ResponseWriterFactory: TypeAlias = Callable[[EventLogWriter], ResponseWriter]


def start_writer_task(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    kind: Literal["stream", "answer"],
    write: Callable[[EventLogWriter], Awaitable[None]],
    *,
    detached: bool = False,
) -> LocalStream:
    """Run `write` in a task of its own. Raises `StreamsClosed` if this process drains; the request is then settled."""
    runtime.leases.add(admitted.admission)
    try:
        return runtime.streams.start(_stream_info(admitted, kind), write, detached=detached)
    except StreamsClosed:
        # The drain began after the admission, and nothing else will release what the admission reserved.
        spawn_settlement(runtime, admitted, CallTrace(admitted.admission.request_id), "drop")
        raise


def _stream_info(admitted: AdmittedRequest, kind: Literal["stream", "answer"]) -> StreamInfo:
    identity = admitted.caller.identity
    return StreamInfo(
        id=admitted.admission.stream_id,
        site=admitted.caller.site,
        status=0,
        content_type="",
        wire_format=admitted.live_request.wire_format,
        origin=identity.origin,
        kind=kind,
        created_at=clock.now().timestamp(),
        token=identity.token_id,
        user=identity.user,
        model=admitted.request.model,
    )


def cancellation_error(event_log: EventLogWriter) -> LiveError:
    """Return why the writer task was canceled, as the error that readers get."""
    return InterruptedByShutdown() if event_log.stream.cancel_reason == "shutdown" else ResponseCanceled()

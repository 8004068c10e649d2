"""Runs one admitted request for a stream: calls the provider, writes its answer to the event log, and settles.

The steps of one live stream, in two tasks (ARCHITECTURE.md has every step). The reader task reads the request, then the
events; `start_stream` starts the writer task, which calls the provider. The stream id is all that they share. Both find
the stream in the process's `ProcessStreams` (streams.registry); a reader in another process finds its log in Redis.

  reader task                                               writer task
  api/live/http_handler.py: LiveHttpHandler.__call__
    reads the body
  api/live/infer.py: InferenceEndpoint._respond
    authenticates, parses the body to a LiveRequest
  live/admit.py: admit_request
    permit, rate limits, idempotency key, cache
  live/run_stream.py: start_stream ───────────────────────▶ live/run_stream.py: _write_stream
    (live/writer_task.py: start_writer_task)                  iterates over the parts of the answer
  api/live/infer.py: _send_stream                           inference/stream.py: stream_plan
    opens an EventLogReader (streams/reader.py: follow)       calls targets until one answers, yields its bursts
  api/live/respond.py: wait_for_first_events                api/live/wire_writer.py: WireResponseWriter.events
    waits, for the status of the response                     encodes a burst into frames
  api/live/respond.py: send_events ◀────── event log ────── streams/writer.py: EventLogWriter.append, then finish
    writes server-sent events until the stream ends         live/settlement.py: spawn_settlement
                                                              releases the reservation, records usage

A client that disconnects ends only its reader task, and may resume with a cursor. The writer task of a stream without
readers in any process is canceled after the grace time (streams/registry.py), unless the stream is detached.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from core import metrics
from inference.calls import CallTrace
from inference.continuation import stream_with_continuation
from inference.stream import StreamPart, TargetSelected, TargetSwitched, stream
from live.admit import AdmittedRequest
from live.ledger import inference_context
from live.runtime import LiveRuntime
from live.settlement import IdempotencyOutcome, spawn_settlement
from live.writer_task import ResponseWriterFactory, cancellation_error, start_writer_task
from providers.types import Burst, ChatRequest
from streams.buffer import LocalStream
from streams.entries import StreamEnd
from streams.writer import EventLogWriter


def start_stream(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    make_writer: ResponseWriterFactory,
    *,
    detached: bool = False,
) -> LocalStream:
    """Start the writer task of a stream. A detached one runs to its end without readers. Raises `StreamsClosed`."""
    write = partial(_write_stream, runtime, admitted, make_writer)
    return start_writer_task(runtime, admitted, "stream", write, detached=detached)


async def _write_stream(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    make_writer: ResponseWriterFactory,
    event_log: EventLogWriter,
) -> None:
    outcome: IdempotencyOutcome = "drop"
    writer, trace = make_writer(event_log), CallTrace(admitted.admission.request_id)
    metrics.streams_open.inc()
    try:
        async with aclosing(_parts(runtime, admitted, trace)) as parts:
            async for part in parts:
                match part:
                    case Burst():
                        writer.events(part)
                    case TargetSelected(target):
                        writer.start(target)
                    case TargetSwitched(target):
                        writer.continued(target)
        outcome = "keep"
        await event_log.finish(StreamEnd("done"))
    except asyncio.CancelledError:
        writer.error(cancellation_error(event_log))
        raise
    except Exception as error:
        writer.error(error)
        await event_log.finish(StreamEnd("error"))
    finally:
        metrics.streams_open.dec()
        spawn_settlement(runtime, admitted, trace, outcome)


def _parts(runtime: LiveRuntime, admitted: AdmittedRequest, trace: CallTrace) -> AsyncGenerator[StreamPart, None]:
    assert isinstance(admitted.request, ChatRequest)
    stream_answer = stream_with_continuation if admitted.is_continuable else stream
    return stream_answer(admitted.request, admitted.targets, inference_context(runtime, admitted, trace))

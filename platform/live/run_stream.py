"""Runs one admitted request for a stream: calls the provider, writes its answer to the event log, and settles.

The way of one live stream. Two tasks share the stream id: the reader's task is the HTTP request (or a WebSocket
subscription), the writer task is started in step 4 and outlives it.

    reader's task                                         writer task
     1. api/live/http_handler.py  LiveHttpHandler: read the body
     2. api/live/infer.py         LiveEndpoint._respond: authenticate, parse to a LiveRequest
     3. live/admit.py             admit_request: permit, rate limits, idempotency, cache
     4. live/run_stream.py        start_stream ──────────▶ 5. _write_stream: read parts from inference.stream.stream
     6. api/live/infer.py         _send_stream:           7. ResponseWriter (api/live/wire_writer.py): encode each
        streams.reader.follow(stream id)                     burst into frames, EventLogWriter.append
     8. api/live/respond.py       wait_for_first_events,  9. inference/failover.py: before the first token, a failed
        send_events: write SSE  ◀── event log ───────────    call goes to the next target
    10. respond.py                last frame, end        11. EventLogWriter.finish
                                                         12. live/settlement.py  spawn_settlement: release, record usage

A reader that disconnects ends only its own task. A stream that no process reads is canceled after the grace time
(`streams.registry`), unless it is detached; any reader may come back with a cursor.
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
from live.writer_task import WriterFactory, cancellation_error, start_writer_task
from providers.types import Burst, ChatRequest
from streams.buffer import LocalStream
from streams.entries import StreamEnd
from streams.writer import EventLogWriter


def start_stream(
    runtime: LiveRuntime, admitted: AdmittedRequest, open_writer: WriterFactory, *, detached: bool = False
) -> LocalStream:
    """Start the writer task of a stream. A detached one runs to its end without readers. Raises `StreamsClosed`."""
    write = partial(_write_stream, runtime, admitted, open_writer)
    return start_writer_task(runtime, admitted, "stream", write, detached=detached)


async def _write_stream(
    runtime: LiveRuntime, admitted: AdmittedRequest, open_writer: WriterFactory, event_log: EventLogWriter
) -> None:
    outcome: IdempotencyOutcome = "drop"
    writer, trace = open_writer(event_log), CallTrace(admitted.admission.request_id)
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

"""The endpoints that read and cancel streams, `/v1/streams/{id}`, wherever their writer runs.

A reader attaches to a stream at a cursor; see `live.run_stream` for both ends.
"""

from api.live.authenticate import authenticate, authenticate_event_reader, check_stream_access
from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.infer import with_error_response
from api.live.respond import (
    JSON,
    ResponseContext,
    keep_alive_seconds,
    send_body,
    send_complete,
    send_events,
    to_json,
    wait_for_first_events,
)
from live.admit import consume_nonce
from live.runtime import live_runtime
from streams.entries import parse_cursor
from streams.errors import CursorMalformed
from streams.reader import EventLogReader, find_record, follow, request_cancel
from tenants.access import TokenScope
from tenants.tickets import ReadableKind


async def read_stream(http_request: LiveHttpRequest, response: LiveHttpResponse, stream_id: str) -> None:
    """`GET /v1/streams/{id}/events`: the events after a cursor, then new ones until the stream ends."""
    await with_error_response(
        ResponseContext(http_request, "stream_events"), response, lambda context, r: _read(context, r, stream_id)
    )


async def cancel_stream(http_request: LiveHttpRequest, response: LiveHttpResponse, stream_id: str) -> None:
    """`DELETE /v1/streams/{id}`: close the call upstream. The tokens until then are billed."""
    await with_error_response(
        ResponseContext(http_request, "stream_cancel"), response, lambda context, r: _cancel(context, r, stream_id)
    )


async def _read(context: ResponseContext, response: LiveHttpResponse, stream_id: str) -> None:
    http_request, runtime = context.http_request, await live_runtime()
    authorized = await authenticate_event_reader(context, runtime, ReadableKind.STREAM, stream_id)
    after = cursor_of(http_request, stream_id)
    reader = follow(
        runtime.process_streams, stream_id, after, site=authorized.site.public_id, idle_seconds=keep_alive_seconds()
    )
    async with reader:
        check_stream_access(reader.info, authorized.authenticated.identity if authorized.authenticated else None)
        await _send_stream(context, response, reader)


async def _send_stream(context: ResponseContext, response: LiveHttpResponse, reader: EventLogReader) -> None:
    events = await wait_for_first_events(reader)
    if reader.info.content_type == JSON:
        await send_complete(context, response, reader.info, events)
    else:
        await send_events(context, response, reader, events)


async def _cancel(context: ResponseContext, response: LiveHttpResponse, stream_id: str) -> None:
    runtime, caller = await authenticate(context, TokenScope.STREAMS_WRITE)
    await consume_nonce(runtime, caller)
    check_stream_access((await find_record(runtime.process_streams, stream_id, site=caller.site)).info, caller.identity)
    was_running = await request_cancel(runtime.process_streams, stream_id, site=caller.site)
    await send_body(context, response, to_json({"id": stream_id, "canceled": was_running}), 202 if was_running else 200)


def cursor_of(http_request: LiveHttpRequest, stream_id: str) -> int:
    """Return the sequence number of the last event that the reader has: `Last-Event-ID`, or `?after=`. 0: none.

    Raises:
        CursorError: it is not a cursor of this stream.
    """
    last, after = http_request.headers.get("last-event-id"), http_request.query_parameter("after")
    if last and after and last != after:
        raise CursorMalformed("Last-Event-ID and ?after= name different events; send one.")
    text = last or after
    return parse_cursor(text, stream_id) if text else 0

"""Reading streams that run, or ran: `GET` and `DELETE /v1/streams/{id}`, on any process."""

from api.live.answer import JSON, Course, first_events, keep_alive_seconds, send_body, send_events, send_whole
from api.live.asked import Asked
from api.live.begin import to_json
from api.live.desk import live_desk
from api.live.infer import answered
from api.live.request import Reply
from api.live.who import Known, check_own, enter, use_up
from streams.errors import CursorMalformed
from streams.follow import Following, find_record, follow, request_cancel
from streams.ids import read_cursor
from tenants.limits import Scope, check_place
from tenants.live_proof import prove_reader
from tenants.origins import allowed_origin
from tenants.tickets import Readable


async def read_stream(asked: Asked, reply: Reply, stream_id: str) -> None:
    """`GET /v1/streams/{id}/events`: all events after a cursor, then those that come, until the end."""
    await answered(Course(asked, "stream_events"), reply, lambda course, r: _read(course, r, stream_id))


async def cancel_stream(asked: Asked, reply: Reply, stream_id: str) -> None:
    """`DELETE /v1/streams/{id}`: close the call upstream; what came until then is paid."""
    await answered(Course(asked, "stream_cancel"), reply, lambda course, r: _cancel(course, r, stream_id))


async def _read(course: Course, reply: Reply, stream_id: str) -> None:
    asked, desk = course.asked, await live_desk()
    reader = await prove_reader(
        asked.presented(), Readable.STREAM, stream_id, origin=asked.origin, threads=desk.threads
    )
    course.origin = allowed_origin(asked.headers.get("origin"), reader.site, reader.origin)
    if reader.proven is not None:
        check_place(reader.proven.identity, asked.address, asked.origin)
        await use_up(desk, Known(reader.proven.identity, reader.proven.nonce))
    after = cursor_of(asked, stream_id)
    following = follow(desk.server, stream_id, after, site=reader.site.public_id, idle_seconds=keep_alive_seconds())
    async with following:
        check_own(following.about, reader.proven.identity if reader.proven else None)
        await _send(course, reply, following)


async def _send(course: Course, reply: Reply, following: Following) -> None:
    events = await first_events(following)
    if following.about.content_type == JSON:
        await send_whole(course, reply, following.about, events)
    else:
        await send_events(course, reply, following, events)


async def _cancel(course: Course, reply: Reply, stream_id: str) -> None:
    desk, known = await enter(course, Scope.STREAMS_WRITE)
    await use_up(desk, known)
    check_own((await find_record(desk.server, stream_id, site=known.site)).about, known.identity)
    was_running = await request_cancel(desk.server, stream_id, site=known.site)
    await send_body(course, reply, to_json({"id": stream_id, "canceled": was_running}), 202 if was_running else 200)


def cursor_of(asked: Asked, stream_id: str) -> int:
    """Return the number of the last event that the reader has: `Last-Event-ID`, or `?after=`. 0: none.

    Raises:
        CursorError: it says something else.
    """
    last, after = asked.headers.get("last-event-id"), asked.parameter("after")
    if last and after and last != after:
        raise CursorMalformed("Last-Event-ID and ?after= name different events; send one.")
    text = last or after
    return read_cursor(text, stream_id) if text else 0

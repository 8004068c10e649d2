"""Format of the event log: stream ids, cursors, events, entries, records, and their Redis keys. No I/O.

A stream is a sequence of events, numbered from 1 without gaps. In Redis it is two keys: a Redis Stream of entries, each
of which holds several events, and a record that says whose stream it is and how it ended. Both are MessagePack.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct, field, msgpack

from core.ids import InvalidId, from_public, new_uuid, to_public
from core.redis_keys import heartbeat_key
from streams.errors import CursorExpired, CursorForeign, CursorMalformed, StreamUnknown

STREAM_ID_PREFIX = "stm"
#: More events than any stream has; Redis counts entry ids in 64 bits.
MAX_SEQ_DIGITS = 15

#: A reader fetches whole entries, and the log is trimmed by whole entries. A longer event gets an entry of its own.
MAX_ENTRY_BYTES = 64 * 1024

#: Cancel requests travel with the heartbeat of the serving process, so a stream is canceled in under a second.
HEARTBEAT_SECONDS = 0.5
#: A busy event loop or a slow Redis may cost eight heartbeats before other processes consider this one dead.
HEARTBEAT_TTL_SECONDS = 4

StreamEndKind: TypeAlias = Literal["done", "error", "canceled"]


class LoggedEvent(Struct, frozen=True, gc=False, array_like=True):
    """One frame in the caller's wire format, with its sequence number: events are counted from 1, without gaps."""

    seq: int
    name: str
    data: bytes


class StreamEnd(Struct, frozen=True, gc=False, array_like=True):
    """How the stream ended. The last events say it in the caller's wire format, if the writer could append them."""

    kind: StreamEndKind


class StreamInfo(Struct, frozen=True, kw_only=True):
    """What a reader must know before the first event: owner, format, and who may read."""

    id: str
    site: str
    #: HTTP status of the response; 0 while it is not known yet.
    status: int
    content_type: str
    #: The name of the wire format of its events; it means nothing in this room.
    wire_format: str
    #: The only web origin whose pages may read it in a browser.
    origin: str | None
    kind: Literal["stream", "answer"]
    created_at: float
    #: The narrow token that started the stream. No other narrow token may read it,
    token: str | None = None
    #: except tokens for the same user, if it was started for one.
    user: str | None = None
    #: The requested model; empty where the starter gave none.
    model: str = ""
    #: `Retry-After` of an error that is sent as a complete response.
    retry_after_seconds: int | None = None


class StreamRecord(Struct, frozen=True):
    """The record beside a log: whose stream it is, which process serves it, and its end if it has one."""

    #: "about" in Redis.
    info: StreamInfo = field(name="about")
    process: str
    last: int
    end: StreamEnd | None


class LogEntry(Struct, frozen=True, array_like=True):
    """Consecutive events; `last` is the number of the newest."""

    last: int
    events: list[LoggedEvent]
    end: StreamEnd | None

    @property
    def id(self) -> str:
        """Id of the entry in the Redis Stream. `-1` lets an end without events follow the entry of the last event."""
        return f"{self.last}-{1 if self.end else 0}"


encode = msgpack.Encoder().encode
decode_entry = msgpack.Decoder(LogEntry).decode
decode_record = msgpack.Decoder(StreamRecord).decode


# Stream ids and cursors: `stm_…`, and `stm_…-57` for the position after event 57.


def new_stream_id() -> str:
    return to_public(STREAM_ID_PREFIX, new_uuid())


def parse_stream_id(text: str) -> UUID:
    """Return the UUID of a stream id. Raises `StreamUnknown` for any other text."""
    try:
        return from_public(STREAM_ID_PREFIX, text)
    except InvalidId as error:
        raise StreamUnknown(str(error)) from error


def stream_age_seconds(stream_id: str) -> float:
    """Return how long ago the id was created. Raises `StreamUnknown` for a text that is not a stream id."""
    return time.time() - (parse_stream_id(stream_id).int >> 80) / 1000


def parse_cursor(text: str, stream_id: str) -> int:
    """Return the number of the last event that the client received. A bare number is a cursor of `stream_id`.

    A cursor is the `id:` field of a server-sent event (`providers.sse_writer`): `<stream id>-<number>`.

    Raises `CursorMalformed` and `CursorForeign`.
    """
    named, _, digits = text.rpartition("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_SEQ_DIGITS):
        raise CursorMalformed(f"{text[:64]!r} is not a cursor; write {stream_id}-<number of the last event received>.")
    if named and named != stream_id:
        try:
            parse_stream_id(named)
        except StreamUnknown as error:
            raise CursorMalformed(f"{text[:64]!r} does not start with a stream id.") from error
        raise CursorForeign(f"The cursor {text!r} belongs to another stream than {stream_id}.")
    if text.startswith("-"):
        raise CursorMalformed(f"{text[:64]!r} is not a cursor; events are counted from 1.")
    return int(digits)


# Redis keys. `append.lua` derives the record key and the channel from the log key.


def log_key(stream_id: str) -> str:
    """Key of the Redis Stream that holds the entries."""
    return f"nd:stream:{stream_id}"


def record_key(stream_id: str) -> str:
    """Key of the stream's record."""
    return f"nd:stream:{stream_id}:about"


def channel_name(stream_id: str) -> str:
    """Pub/sub channel on which new entries are published to readers in other processes."""
    return f"nd:stream:{stream_id}:tail"


def cancel_key(process_id: str) -> str:
    """Set of the streams that the process is requested to cancel."""
    return f"{heartbeat_key(process_id)}:cancel"


def process_report_key(process_id: str) -> str:
    """Key of the process's report of the streams that it runs."""
    return f"{heartbeat_key(process_id)}:running"


# Events to entries and back


def split_into_entries(after: int, events: Sequence[LoggedEvent], end: StreamEnd | None) -> Iterator[LogEntry]:
    """Yield as few entries as hold all events and the end, none much longer than `MAX_ENTRY_BYTES`.

    `after` is the number of the event before the first of `events`. Without events, an end is an entry of its own.
    """
    begin = size = 0
    for index, event in enumerate(events):
        size += len(event.data)
        if size > MAX_ENTRY_BYTES and index > begin:
            yield LogEntry(events[index - 1].seq, list(events[begin:index]), None)
            begin, size = index, len(event.data)
    last = events[-1].seq if events else after
    if begin < len(events) or end:
        yield LogEntry(last, list(events[begin:]), end)


def merge_entries(entries: Sequence[LogEntry], after: int) -> tuple[list[LoggedEvent], StreamEnd | None]:
    """Return the events after `after` up to the first gap, and the end if it is reached: undoes `split_into_entries`.

    Entries may overlap: one whose write seemed to have failed is written again, with more events in it. Raises
    `CursorExpired` if the very next event is missing.
    """
    events: list[LoggedEvent] = []
    seq = after
    for entry in entries:
        new = [event for event in entry.events if event.seq > seq]
        expected_last = seq + len(new)
        if max(entry.last, seq) != expected_last:
            if events:
                break
            raise CursorExpired(f"Event {after + 1} is no longer stored; the log goes up to {entry.last}.")
        events += new
        seq = expected_last
        if entry.end:
            return events, entry.end
    return events, None

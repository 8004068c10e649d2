"""What the log holds: events, coalesced into entries, beside a record that says whose they are."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct, msgpack

#: A reader takes an entry whole, and the log is trimmed by whole entries. One longer event has one to itself.
MAX_ENTRY_BYTES = 64 * 1024

#: A process makes its mark twice a second, so that who asks for a stream to be canceled waits for less than one.
HEARTBEAT_SECONDS = 0.5
#: Eight beats may be lost to a loop that is busy, or to a Redis that is slow, before others take it for dead.
HEARTBEAT_TTL_SECONDS = 4

StreamEndKind: TypeAlias = Literal["done", "error", "canceled"]


class LoggedEvent(Struct, frozen=True, gc=False, array_like=True):
    """One frame of the caller's dialect, and which it is: events are counted from 1, without gaps."""

    seq: int
    name: str
    data: bytes


class StreamEnd(Struct, frozen=True, gc=False, array_like=True):
    """How the stream ended. What its dialect says about that is in the last events, if whoever wrote it could."""

    kind: StreamEndKind


class StreamInfo(Struct, frozen=True, kw_only=True):
    """What a reader must know before the first event."""

    id: str
    site: str
    #: Of the answer; 0 while it is not known yet.
    status: int
    content_type: str
    dialect: str
    #: The only page that may read it in a browser.
    origin: str | None
    kind: Literal["stream", "answer"]
    created_at: float
    #: The narrow token that it was begun with; no other one may read it,
    token: str | None = None
    #: but those that are for the same user, if it was for one.
    user: str | None = None
    #: The name that was asked for; empty where nobody said.
    model: str = ""
    #: When to come back, of an error that is told as an answer.
    retry_after_seconds: int | None = None


class StreamRecord(Struct, frozen=True):
    """What stands beside a log: whose stream it is, which process serves it, and its end if it has one."""

    about: StreamInfo
    process: str
    last: int
    end: StreamEnd | None


class LogEntry(Struct, frozen=True, array_like=True):
    """Several events, up to and with event number `last`."""

    last: int
    events: list[LoggedEvent]
    end: StreamEnd | None

    @property
    def id(self) -> str:
        """Of the entry in the Redis Stream. The end may follow its last event in an entry without events."""
        return f"{self.last}-{1 if self.end else 0}"


encode = msgpack.Encoder().encode
decode_entry = msgpack.Decoder(LogEntry).decode
decode_record = msgpack.Decoder(StreamRecord).decode


# `append.lua` makes the second and third of these names out of the first.


def log_key(stream_id: str) -> str:
    """Name the Redis Stream that holds a stream's entries."""
    return f"nd:stream:{stream_id}"


def record_key(stream_id: str) -> str:
    """Name the key of a stream's record."""
    return f"nd:stream:{stream_id}:about"


def channel_name(stream_id: str) -> str:
    """Name the channel on which a stream's entries are told to who is reading it."""
    return f"nd:stream:{stream_id}:tail"


def heartbeat_key(process_id: str) -> str:
    """Name the key that is there as long as a process is."""
    return f"nd:process:{process_id}"


def cancel_key(process_id: str) -> str:
    """Name the set of streams that a process is asked to cancel."""
    return f"nd:process:{process_id}:cancel"


def process_report_key(process_id: str) -> str:
    """Name the key in which a process tells what it runs."""
    return f"nd:process:{process_id}:running"


def split_into_entries(after: int, events: Sequence[LoggedEvent], end: StreamEnd | None) -> Iterator[LogEntry]:
    """Yield the entries that say all this: few, but none much longer than `MAX_ENTRY_BYTES`."""
    begin = size = 0
    for index, event in enumerate(events):
        size += len(event.data)
        if size > MAX_ENTRY_BYTES and index > begin:
            yield LogEntry(events[index - 1].seq, list(events[begin:index]), None)
            begin, size = index, len(event.data)
    last = events[-1].seq if events else after
    if begin < len(events) or end:
        yield LogEntry(last, list(events[begin:]), end)

"""Names of streams, and of places in them: `stm_…` and `stm_…-57`, which stands after event 57."""

import time
from uuid import UUID

from core.ids import InvalidId, from_public, new_uuid, to_public
from streams.errors import CursorForeign, CursorMalformed, StreamUnknown

STREAM_ID_PREFIX = "stm"
#: More events than any stream has; and Redis counts in 64 bits.
MAX_SEQ_DIGITS = 15


def new_stream_id() -> str:
    """Return the id of a new stream."""
    return to_public(STREAM_ID_PREFIX, new_uuid())


def format_cursor(stream_id: str, seq: int) -> str:
    """Return the place after an event, as `id:` says it to an `EventSource`."""
    return f"{stream_id}-{seq}"


def parse_cursor(text: str, stream_id: str) -> int:
    """Return the seq of the last event that was received. A bare number is one of the stream that is asked for.

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


def stream_age_seconds(stream_id: str) -> float:
    """Return how long ago the id was made. Raises `StreamUnknown` for what is no id of a stream."""
    return time.time() - (parse_stream_id(stream_id).int >> 80) / 1000


def parse_stream_id(text: str) -> UUID:
    """Return what is named by the id of a stream. Raises `StreamUnknown` for all other texts."""
    try:
        return from_public(STREAM_ID_PREFIX, text)
    except InvalidId as error:
        raise StreamUnknown(str(error)) from error

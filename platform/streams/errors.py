"""Errors of reading and starting streams.

* StreamError
  + StreamUnknown       no stream has this id, or it belongs to another site
  + StreamOrphaned      the serving process died: no event and no end will follow
  + StreamEndedEmpty    the stream ended before its first event
  + StreamsClosed       this process is shutting down and starts no new streams
  + CursorError
    - CursorMalformed   the text is not a cursor
    - CursorForeign     the cursor belongs to another stream
    - CursorAhead       the cursor is beyond the last event
    - CursorExpired     the event after the cursor is no longer stored
"""


class StreamError(Exception):
    """Base of all errors of streams."""


class StreamUnknown(StreamError):
    """No stream has this id, or it belongs to another site: the caller must not learn which of the two."""


class StreamOrphaned(StreamError):
    """The serving process died before it wrote an end."""


class StreamEndedEmpty(StreamError):
    """The stream ended, and its writer had appended no event."""


class StreamsClosed(StreamError):
    """This process is shutting down and starts no new streams."""


class CursorError(StreamError):
    """The stream cannot be read from this cursor."""


class CursorMalformed(CursorError):
    """The text is not a cursor."""


class CursorForeign(CursorError):
    """The cursor belongs to another stream."""


class CursorAhead(CursorError):
    """The cursor is beyond the last event of the stream."""


class CursorExpired(CursorError):
    """The event after the cursor is no longer stored."""

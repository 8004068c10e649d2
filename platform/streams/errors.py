"""What can be wrong with a stream that somebody wants to read.

* StreamError
  + StreamUnknown       there is none of that id, or it is another site's
  + Orphaned            the process that served it is gone: no event will follow, and no end
  + NeverBegan          it has ended, before its first event
  + StreamsClosed       this process starts no more streams: it is about to stop
  + CursorError
    - CursorMalformed   the text is no cursor
    - CursorForeign     it is a cursor of another stream
    - CursorAhead       it lies behind the last event there is
    - CursorExpired     the event after it is no longer kept
"""


class StreamError(Exception):
    """A stream cannot be read."""


class StreamUnknown(StreamError):
    """There is no stream of that id, or it is another site's: who asks must not learn which."""


class StreamOrphaned(StreamError):
    """The process that served the stream is gone, and left no end."""


class StreamEndedEmpty(StreamError):
    """The stream has ended, and whoever wrote it said nothing."""


class StreamsClosed(StreamError):
    """This process starts no more streams."""


class CursorError(StreamError):
    """There is no going on from this cursor."""


class CursorMalformed(CursorError):
    """The text is no cursor."""


class CursorForeign(CursorError):
    """The cursor belongs to another stream."""


class CursorAhead(CursorError):
    """The cursor lies behind the last event there is."""


class CursorExpired(CursorError):
    """The event after the cursor is no longer kept."""

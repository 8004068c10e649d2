"""Server-sent events: from frames to bytes, with ids that the official clients can read (wire formats, 1.3 and 17)."""

from collections.abc import Iterable

#: One line without an empty one after it, or the official OpenAI client takes it for an event. Between frames only.
KEEP_ALIVE = b": keep-alive\n"


def encode_frames(
    stream_id: str, first_seq: int, frames: Iterable[tuple[str, bytes]], *, retry_milliseconds: int | None = None
) -> bytes:
    """Return frames as they are sent, numbered from `first_seq`.

    `retry_milliseconds`, how long a browser waits before it comes back, becomes part of the first frame: by itself
    it would be an event for the official OpenAI client.
    """
    head = b"id: %b-" % stream_id.encode()
    parts = []
    for seq, (event, data) in enumerate(frames, first_seq):
        name = b"event: %b\n" % event.encode() if event else b""
        parts.append(b"%b%d\n%bdata: %b\n\n" % (head, seq, name, _data_lines(data)))
    if parts and retry_milliseconds is not None:
        parts.insert(0, b"retry: %d\n" % retry_milliseconds)
    return b"".join(parts)


def encode_unnumbered_frame(event: str, data: bytes) -> bytes:
    """Return a frame that is no event of the stream: a reader that comes back does not count it."""
    return b"%bdata: %b\n\n" % (b"event: %b\n" % event.encode() if event else b"", _data_lines(data))


def _data_lines(data: bytes) -> bytes:
    """Return data of several lines as as many fields; JSON on one line as it is."""
    if b"\n" not in data and b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")

"""Encoder of server-sent events: frames to bytes, with ids and keep-alives that the official clients accept.

See docs/reference/wire-formats.md, 1.3 and 17.
"""

from collections.abc import Iterable

#: One line without an empty line after it, or the official OpenAI client reads it as an event. Only between frames.
KEEP_ALIVE = b": keep-alive\n"


def encode_frames(
    stream_id: str, first_seq: int, frames: Iterable[tuple[str, bytes]], *, retry_milliseconds: int | None = None
) -> bytes:
    """Return the bytes of frames, numbered from `first_seq`.

    `retry_milliseconds`, a browser's delay before it reconnects, becomes part of the first frame: the official OpenAI
    client would read it alone as an event.
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
    """Return a frame without an id: it does not change from where a reconnecting reader resumes."""
    return b"%bdata: %b\n\n" % (b"event: %b\n" % event.encode() if event else b"", _data_lines(data))


def _data_lines(data: bytes) -> bytes:
    """Return each line as a `data` field of its own; JSON on one line unchanged."""
    if b"\n" not in data and b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")

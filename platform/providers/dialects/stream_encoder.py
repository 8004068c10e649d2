"""What all callers' dialects share in writing a stream: the shape of an encoder, and text as JSON."""

from typing import Protocol

import msgspec

from providers.dialects.error_payloads import ErrorPayload
from providers.sse import Frame
from providers.types import Burst

#: Allowed in JSON, and never an end of line in server-sent events; but many clients split lines with a text library
#: that takes them for one, and would see half a frame.
_UNICODE_LINE_ENDS = (("\u0085", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))

_encode = msgspec.json.Encoder().encode


class StreamEncoder(Protocol):
    """Makes frames of a caller's dialect out of a stream: one for each stream."""

    def encode(self, burst: Burst) -> list[Frame]:
        """Return the frames for what came; with `Finished` in it also those that end the stream."""
        ...

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        """Return the frames that say that the stream is broken off. Nothing may follow, least of all an end mark."""
        ...

    def continue_with(self, provider: str) -> tuple["StreamEncoder", list[Frame]]:
        """Return the encoder for what this provider goes on with, in the same answer of the same caller.

        The frames say so. Clients that do not know of it make nothing of them.
        """
        ...


def encode_continuation_marker(provider: str) -> bytes:
    """Return what a frame of ours bears, under the name `nightdesk`, where this provider goes on with an answer."""
    return _encode({"continued_by": provider})


def encode_json_string(text: str) -> bytes:
    """Return a text as a JSON string on one line, whatever the reader takes for the end of a line."""
    data = _encode(text)
    # `isascii` is a look at a flag.
    return data if text.isascii() else _escape_line_ends(text, data)


def _escape_line_ends(text: str, data: bytes) -> bytes:
    for end, escaped in _UNICODE_LINE_ENDS:
        if end in text:
            data = data.replace(end.encode(), escaped)
    return data

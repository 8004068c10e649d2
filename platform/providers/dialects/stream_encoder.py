"""The interface of stream encoders, and the JSON helpers that they share."""

from typing import Protocol

import msgspec

from providers.dialects.error_payloads import ErrorPayload
from providers.sse import Frame
from providers.types import Burst

#: Valid in JSON, and no line ends in server-sent events; but many clients split lines with a text library that treats
#: them as line ends, and would see half a frame.
_UNICODE_LINE_ENDS = (("\u0085", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))

_encode = msgspec.json.Encoder().encode


class StreamEncoder(Protocol):
    """Encodes the events of one stream as frames of the caller's dialect."""

    def encode(self, burst: Burst) -> list[Frame]:
        """Return the frames of a burst; if it contains `AnswerFinished`, also those that end the stream."""
        ...

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        """Return the frames that report an interruption. Nothing may follow, in particular no end marker."""
        ...

    def continue_with(self, provider: str) -> tuple["StreamEncoder", list[Frame]]:
        """Return the encoder for the rest of the answer, from this provider, and frames that mark the switch.

        Clients that do not know the marker ignore it.
        """
        ...


def encode_continuation_marker(provider: str) -> bytes:
    """Return the value of the field `nightdesk` in the frame that marks that this provider continues the answer."""
    return _encode({"continued_by": provider})


def encode_json_string(text: str) -> bytes:
    """Return a text as a JSON string on one line, whatever characters the client treats as line ends."""
    data = _encode(text)
    # `isascii` only reads a flag of the string.
    return data if text.isascii() else _escape_line_ends(text, data)


def _escape_line_ends(text: str, data: bytes) -> bytes:
    for end, escaped in _UNICODE_LINE_ENDS:
        if end in text:
            data = data.replace(end.encode(), escaped)
    return data

"""The response before any fault is applied: a complete body, or a stream of frames."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from simulator.compose import Usage

Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class Frame(NamedTuple):
    """One event of a stream, as its bytes."""

    data: bytes
    #: Output tokens up to and including this frame.
    served_tokens: int
    #: It carries a piece of the answer. Controls count these frames, and they are sent at the pace.
    is_delta: bool = False
    #: Whether it carries the final usage.
    reports_usage: bool = False


@dataclass(frozen=True, slots=True)
class CompleteResponse:
    status: int
    headers: Headers
    body: bytes
    usage: Usage | None = None
    reports_usage: bool = False


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    headers: Headers
    frames: list[Frame]
    #: The frame that is sent if the stream fails half-way.
    error: bytes
    usage: Usage

    @property
    def deltas(self) -> int:
        return sum(frame.is_delta for frame in self.frames)


SimulatedResponse: TypeAlias = CompleteResponse | StreamedResponse


@dataclass(frozen=True, slots=True)
class ResponseIdentity:
    """The values that distinguish two answers with the same text: their ids and times."""

    #: The letters and digits after `chatcmpl-`, `msg_`, `call_` …
    token: str
    created: int


def with_pings(frames: list[Frame], every: int, ping: bytes) -> list[Frame]:
    """Return the frames with a ping after every `every` deltas."""
    if not every:
        return frames
    pinged: list[Frame] = []
    deltas = 0
    for frame in frames:
        pinged.append(frame)
        deltas += frame.is_delta
        if frame.is_delta and deltas % every == 0:
            pinged.append(Frame(ping, frame.served_tokens))
    return pinged

"""The input and output of the load generator, and the schedule of its requests."""

import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

#: The seed: every system gets the same schedule.
SEED = 7
#: Of the number that makes each body different from all others.
DIGITS = 24
BODY_BYTES = 8192
PROSE = "Tell the night shift what the day has left on the desk, in plain words and in the order in which it came. "


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one system.

    Without a `rate` each connection sends its next request after the answer (closed loop); with one, requests are due
    at moments that do not depend on any answer (open loop).
    """

    url: str
    headers: dict[str, str]
    model: str
    stream: bool = False
    body_bytes: int = BODY_BYTES
    #: Closed loop: concurrent connections. Open loop: connections opened in advance; more are opened if all are busy.
    connections: int = 32
    rate: float | None = None
    #: At random times (a Poisson process) instead of evenly.
    random: bool = False
    seconds: float = 5.0
    #: Not counted, before those seconds.
    warm_seconds: float = 1.0
    #: Always the same body, which a cache may know.
    same_body: bool = False
    #: Number of idle streams of this model that stay open meanwhile.
    held: int = 0
    held_model: str = ""
    held_patience_seconds: float = 120.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome; times in seconds. Those of an open loop run from the moment a request was due."""

    seconds: float
    latencies: list[float]
    first_tokens: list[float]
    #: Events of streams that came in those seconds.
    events: int
    #: In all, and not only in those seconds.
    answered: int
    failures: int
    #: The message of the first failure.
    complaint: str
    cache_hits: int
    #: How many streams could be opened before, and how many were still open after.
    held: int
    held_after: int

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def due_moments(rate: float, seconds: float, *, at_random: bool) -> Sequence[float]:
    """Return when each request is due, in seconds from the start."""
    if not at_random:
        return [number / rate for number in range(int(rate * seconds))]
    crowd, moments, moment = random.Random(SEED), [], 0.0
    while (moment := moment + crowd.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def head_of(load: Load) -> bytes:
    """Return the request up to its body, whose size is always the same."""
    parts = urlsplit(load.url)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(load.body_bytes),
        **load.headers,
    }
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def body_around(model: str, stream: bool, size: int) -> tuple[bytes, bytes]:
    """Return the parts before and after a number of `DIGITS` digits in a body of that size."""
    content = "\x00"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
    before, _, after = msgspec.json.encode(body | ({"stream": True} if stream else {})).partition(b"\\u0000")
    left = size - len(before) - DIGITS - len(after)
    if left < 0:
        raise ValueError(f"A body for {model} does not fit into {size} bytes.")
    prose = (" " + PROSE * (left // len(PROSE) + 1))[:left]
    return before, prose.encode() + after

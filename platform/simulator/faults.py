"""What may go wrong with one answer, how it is written down, and whose turn it is.

ok             nothing
503, 429:2     any status from 300 to 599; after the colon, seconds for Retry-After
html_502       the HTML page of a proxy whose upstream is gone
cut, cut:3     the connection ends (FIN) in the middle, or after three deltas; cut:0 before any byte
rst, rst:3     the same with a TCP reset
stall, stall:3 the answer stops coming, and the connection stays open
error, error:3 an error frame inside the stream (before it, or without a stream: status 500)
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Ending(StrEnum):
    CUT = "cut"
    RST = "rst"
    STALL = "stall"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Fine:
    """No fault: the answer goes out whole."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """An error status instead of an answer."""

    status: int
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Html502:
    """A proxy's error page instead of an answer."""


@dataclass(frozen=True, slots=True)
class Break:
    """The answer goes wrong half-way."""

    how: Ending
    #: Deltas sent before it happens; None is half of them.
    after: int | None = None
    #: `after` counts events of any kind instead.
    counts_events: bool = False


Fault: TypeAlias = Fine | Refuse | Html502 | Break

FINE = Fine()


def to_fault(word: str) -> Fault:
    """Read one word of an outcome list. ValueError if it is none."""
    name, _, argument = word.strip().lower().partition(":")
    if name == "ok":
        return FINE
    if name == "html_502":
        return Html502()
    if name in set(Ending):
        return Break(Ending(name), int(argument) if argument else None)
    if re.fullmatch(r"[345]\d\d", name):
        return Refuse(int(name), float(argument) if argument else None)
    raise ValueError(f"{word!r} is no outcome: write ok, a status from 300 to 599, html_502, cut, rst, stall or error.")


def to_faults(words: str) -> tuple[Fault, ...]:
    return tuple(to_fault(word) for word in re.split(r"[,|]", words) if word.strip())


def to_word(fault: Fault) -> str:
    match fault:
        case Refuse(status, retry_after):
            return f"{status}" if retry_after is None else f"{status}:{retry_after:g}"
        case Html502():
            return "html_502"
        case Break(how, after):
            return f"{how}" if after is None else f"{how}:{after}"
        case _:
            return "ok"

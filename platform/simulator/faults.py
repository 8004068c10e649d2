"""Faults of one response, and how an outcome list spells them.

ok             nothing
503, 429:2     any status from 300 to 599; after the colon, seconds for Retry-After
html_502       the HTML page of a proxy whose upstream is unreachable
cut, cut:3     the connection ends (FIN) in the middle, or after three deltas; cut:0 before any byte
rst, rst:3     the same with a TCP reset
stall, stall:3 the answer stops coming, and the connection stays open
error, error:3 an error frame inside the stream (before it, or without a stream: status 500)
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class BreakKind(StrEnum):
    CUT = "cut"
    RST = "rst"
    STALL = "stall"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class NoFault:
    """No fault: the answer is sent completely."""


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """An error status instead of an answer."""

    status: int
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class HtmlErrorPage:
    """A proxy's error page instead of an answer."""


@dataclass(frozen=True, slots=True)
class BrokenResponse:
    """The answer goes wrong half-way."""

    kind: BreakKind
    #: Deltas sent before it happens; None is half of them.
    after: int | None = None
    #: `after` counts events of any kind instead.
    counts_events: bool = False


Fault: TypeAlias = NoFault | ErrorStatus | HtmlErrorPage | BrokenResponse

NO_FAULT = NoFault()


def parse_fault(word: str) -> Fault:
    """Parse one word of an outcome list. Raises ValueError for an unknown one."""
    name, _, argument = word.strip().lower().partition(":")
    if name == "ok":
        return NO_FAULT
    if name == "html_502":
        return HtmlErrorPage()
    if name in set(BreakKind):
        return BrokenResponse(BreakKind(name), int(argument) if argument else None)
    if re.fullmatch(r"[345]\d\d", name):
        return ErrorStatus(int(name), float(argument) if argument else None)
    raise ValueError(
        f"{word!r} is not an outcome; use ok, a status from 300 to 599, html_502, cut, rst, stall or error."
    )


def parse_faults(words: str) -> tuple[Fault, ...]:
    return tuple(parse_fault(word) for word in re.split(r"[,|]", words) if word.strip())


def to_word(fault: Fault) -> str:
    match fault:
        case ErrorStatus(status, retry_after):
            return f"{status}" if retry_after is None else f"{status}:{retry_after:g}"
        case HtmlErrorPage():
            return "html_502"
        case BrokenResponse(kind, after):
            return f"{kind}" if after is None else f"{kind}:{after}"
        case _:
            return "ok"

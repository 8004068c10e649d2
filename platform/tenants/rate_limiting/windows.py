"""Sliding windows as callers know them, and how the keys of a site are named."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

#: More than any limit that is meant. Sums of such numbers are still exact in Lua, whose numbers are doubles.
MAX_LIMIT = 10**15
MAX_TOKEN_COUNT = 2**31 - 1
MAX_WINDOW_SECONDS = 31 * 86_400

SITE_ID_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,63}")

Unit: TypeAlias = Literal["requests", "tokens"]


def encode_text(text: str) -> bytes:
    """Return any text as bytes; JSON can hold halves of characters, which UTF-8 has none of."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """So many requests or tokens in any so many seconds."""

    #: What is counted in it, such as `site`, `model:gpt-4o`, `kind:chat`. From rows of limits, never from a request.
    name: str
    unit: Unit
    limit: int
    seconds: int
    #: How its key ends. Made once: a window outlives many requests.
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.limit < 0 or not 1 <= self.seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"No window: {self.limit} in {self.seconds} s")
        # The name comes last, so that no name can make one window's key another's.
        key = b"window:%b:%d:%b" % (self.unit.encode(), self.seconds, encode_text(self.name))
        object.__setattr__(self, "key", key)

    def needs(self, tokens: int) -> int:
        """Return what a request of so many tokens takes of it."""
        return 1 if self.unit == "requests" else tokens


@dataclass(frozen=True, slots=True)
class RemainingQuota:
    """What a window has room for now, and in how many seconds it is empty if nothing more is asked."""

    window: SlidingWindow
    remaining: int
    reset_seconds: float


@lru_cache(4096)
def site_key_prefix(site: str) -> bytes:
    """Return how every key of a site begins. The braces keep them together in a cluster."""
    if not SITE_ID_PATTERN.fullmatch(site):
        raise ValueError(f"No site: {site[:80]!r}")
    return b"nd:{%b}:" % site.encode()

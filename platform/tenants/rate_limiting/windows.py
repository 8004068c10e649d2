"""Sliding windows as callers see them, and the prefix of a site's Redis keys."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

#: More than any sensible limit. Sums of such numbers are still exact in Lua, whose numbers are doubles.
MAX_LIMIT = 10**15
MAX_TOKEN_COUNT = 2**31 - 1
MAX_WINDOW_SECONDS = 31 * 86_400

SITE_ID_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,63}")

Unit: TypeAlias = Literal["requests", "tokens"]


def encode_text(text: str) -> bytes:
    """Return any text as bytes: JSON can hold lone surrogates, which strict UTF-8 rejects."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """At most `limit` requests or tokens in any `seconds`."""

    #: What is counted in it, such as `site`, `model:gpt-4o`, `kind:chat`. From rows of limits, never from a request.
    name: str
    unit: Unit
    limit: int
    seconds: int
    #: The end of its Redis key. This and what follows is computed once: a window outlives many requests.
    key: bytes = field(init=False, repr=False, compare=False)
    #: The limit, at most `MAX_LIMIT`.
    exact_limit: int = field(init=False, repr=False, compare=False)
    span_us: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.limit < 0 or not 1 <= self.seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"Not a window: {self.limit} in {self.seconds} s")
        # The name comes last, so that no name can turn one window's key into another's.
        key = b"window:%b:%d:%b" % (self.unit.encode(), self.seconds, encode_text(self.name))
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "exact_limit", min(self.limit, MAX_LIMIT))
        object.__setattr__(self, "span_us", self.seconds * 1_000_000)

    def units_for(self, tokens: int) -> int:
        """Return how many units of the window a request with this many tokens takes."""
        return 1 if self.unit == "requests" else tokens


@dataclass(frozen=True, slots=True)
class RemainingQuota:
    """What a window has room for now, and in how many seconds it is empty if nothing more is used."""

    window: SlidingWindow
    remaining: int
    reset_seconds: float


def to_quotas(windows: Sequence[SlidingWindow], numbers: Sequence[float]) -> tuple[RemainingQuota, ...]:
    """Return the quota of each window from the script's `QuotaReply`s: remaining, and microseconds to the reset."""
    pairs = zip(windows, numbers[::2], numbers[1::2], strict=True)
    return tuple(RemainingQuota(window, int(remaining), reset_us / 1e6) for window, remaining, reset_us in pairs)


@lru_cache(4096)
def site_key_prefix(site: str) -> bytes:
    """Return the prefix of every key of a site. The braces (a hash tag) keep them on one node of a cluster."""
    if not SITE_ID_PATTERN.fullmatch(site):
        raise ValueError(f"Not a site id: {site[:80]!r}")
    return b"nd:{%b}:" % site.encode()

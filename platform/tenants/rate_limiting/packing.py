"""Numbers on their way to the scripts and back: packed as Lua has them, one argument instead of many."""

import struct
from collections.abc import Sequence

from tenants.rate_limiting.windows import RemainingQuota, SlidingWindow


def pack_doubles(figures: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(figures)}d", *figures)


def unpack_doubles(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // 8}d", packed)


def to_quotas(windows: Sequence[SlidingWindow], figures: Sequence[float]) -> tuple[RemainingQuota, ...]:
    """Return what is left of each window, by two figures each: what remains, and when it is empty, in microseconds."""
    return tuple(
        RemainingQuota(window, int(figures[2 * i]), figures[2 * i + 1] / 1e6) for i, window in enumerate(windows)
    )

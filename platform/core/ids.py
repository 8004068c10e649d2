"""Public ids: a prefix and a UUIDv7, so that an id states its type and sorts by time."""

import secrets
import threading
import time
from uuid import UUID

#: Crockford's base32, lower case: no i, l, o, u, and the letters sort like their values.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26

#: Ten bits at a time: ids are formatted much more often than they are parsed.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_lock = threading.Lock()
_last_tick = 0


class InvalidId(ValueError):
    """The text is not an id of the expected type."""


def new_uuid() -> UUID:
    """Return a UUIDv7 (RFC 9562, 5.7) greater than every one that this process created before.

    The 12 bits after the version are the fraction of the millisecond (RFC 9562, 6.2, method 3).
    """
    tick = _next_tick()
    milliseconds, fraction = tick >> 12, tick & 0xFFF
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62))


def _next_tick() -> int:
    """Return the time in 1/4096 ms, or the last value plus one if the clock stood still or went back."""
    global _last_tick
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    tick = milliseconds << 12 | (rest << 12) // 1_000_000
    with _lock:
        _last_tick = max(tick, _last_tick + 1)
        return _last_tick


def to_public(prefix: str, value: UUID) -> str:
    """Format a UUID as a public id, e.g. `job_01k9x…`."""
    number = value.int
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def from_public(prefix: str, text: str) -> UUID:
    """Parse a public id. Raises `InvalidId` for any other text or prefix."""
    actual_prefix, _, letters = text.rpartition("_")
    if actual_prefix != prefix or len(letters) != LENGTH or letters[0] > "7":
        raise InvalidId(f"{text[:64]!r} is not an id of the form {prefix}_…")
    number = 0
    for letter in letters:
        if letter not in _VALUES:
            raise InvalidId(f"{text[:64]!r} is not an id of the form {prefix}_…")
        number = number << 5 | _VALUES[letter]
    return UUID(int=number)


def parse_id(prefix: str, text: str) -> UUID | None:
    """Parse a public id, or the UUID that the database stores for it; None for any other text."""
    try:
        return from_public(prefix, text)
    except InvalidId:
        pass
    try:
        return UUID(text)
    except ValueError:
        return None

"""Public ids: a prefix and a UUIDv7, so that they say what they name and sort by time."""

import secrets
import threading
import time
from uuid import UUID

#: Crockford's base32, lower case: no i, l, o, u, and the alphabet sorts like the numbers it stands for.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26

#: Ten bits at a time: ids are written much more often than they are read.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_lock = threading.Lock()
_last_tick = 0


class InvalidId(ValueError):
    """The text is not an id of the kind asked for."""


def new_uuid() -> UUID:
    """Return a UUIDv7 (RFC 9562, 5.7) greater than every one this process made before.

    The 12 bits after the version are the fraction of the millisecond (RFC 9562, 6.2, method 3).
    """
    tick = _next_tick()
    milliseconds, fraction = tick >> 12, tick & 0xFFF
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62))


def _next_tick() -> int:
    """Return the time in 1/4096 ms, moved on by one where the clock stood still or went back."""
    global _last_tick
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    tick = milliseconds << 12 | (rest << 12) // 1_000_000
    with _lock:
        _last_tick = max(tick, _last_tick + 1)
        return _last_tick


def to_public(prefix: str, value: UUID) -> str:
    """Write a UUID as a public id, e.g. `job_01k9x…`."""
    number = value.int
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def from_public(prefix: str, text: str) -> UUID:
    """Read a public id back. Raises `InvalidId` for any other text or prefix."""
    found, _, letters = text.rpartition("_")
    if found != prefix or len(letters) != LENGTH or letters[0] > "7":
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

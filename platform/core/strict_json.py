"""JSON that every reader understands alike: no duplicate key in an object, no integer that a reader would round.

The API's parser applies it to request bodies, and `jobs.batches.requests` to the lines of a batch.
"""

import json
from collections.abc import Iterable
from typing import Any

#: Digits of the largest integer that fits 64 bits, with its sign.
MAX_INTEGER_DIGITS = 20


class AmbiguousJson(ValueError):
    """It is JSON, but readers may understand it differently. `key` is the duplicate key, if that is the reason."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def check_unambiguous(text: str) -> None:
    """Check a text that is known to be JSON. Raises `AmbiguousJson`."""
    DECODER.decode(text)


def to_unique_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Hook for `object_pairs_hook`. Raises `AmbiguousJson` for a duplicate key."""
    result = dict(pairs)
    if len(result) != len(pairs):
        key = _first_repeated(key for key, _ in pairs)
        raise AmbiguousJson(f"Duplicate key {key[:60]!r} in one object.", key)
    return result


def to_64_bit_int(text: str) -> int:
    """Hook for `parse_int`. Raises `AmbiguousJson` for an integer of more than 64 bits."""
    number = int(text) if len(text) <= MAX_INTEGER_DIGITS else None
    if number is None or not -(2**63) <= number < 2**64:
        raise AmbiguousJson("An integer has more than 64 bits.")
    return number


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return ""


DECODER = json.JSONDecoder(object_pairs_hook=to_unique_dict, parse_int=to_64_bit_int)

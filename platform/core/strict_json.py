"""JSON that every reader takes for the same: no key twice in one object, no whole number that would be rounded.

What is posted as a job is held to this at the edge; a line of a batch is held to it here.
"""

import json
from typing import Any

#: Digits of the largest whole number that fits 64 bits, with its sign.
MAX_NUMBER_LENGTH = 20


class AmbiguousJson(ValueError):
    """It is JSON, and readers would differ about what it says."""


def check_unambiguous(text: str) -> None:
    """Look at JSON that was read before. Raises `AmbiguousJson`."""
    DECODER.decode(text)


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise AmbiguousJson(f"Duplicate key {twice[:60]!r} in one object.")
    return found


def _to_int(text: str) -> int:
    number = int(text) if len(text) <= MAX_NUMBER_LENGTH else None
    if number is None or not -(2**63) <= number < 2**64:
        raise AmbiguousJson("It holds a whole number of more than 64 bits.")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_to_dict, parse_int=_to_int)

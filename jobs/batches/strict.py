"""JSON that every reader takes for the same: no key twice in one object, no whole number that would be rounded.

What is posted as a job is held to this at the edge; a line of a batch is held to it here.
"""

import json
from typing import Any

#: Digits of the largest whole number that fits 64 bits, with its sign.
LONGEST_NUMBER = 20


class Ambiguous(ValueError):
    """It is JSON, and readers would differ about what it says."""


def check(text: str) -> None:
    """Look at JSON that was read before. Raises `Ambiguous`."""
    DECODER.decode(text)


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Ambiguous(f"The key {twice[:60]!r} stands in one object twice.")
    return found


def _to_int(text: str) -> int:
    number = int(text) if len(text) <= LONGEST_NUMBER else None
    if number is None or not -(2**63) <= number < 2**64:
        raise Ambiguous("It holds a whole number of more than 64 bits.")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_to_dict, parse_int=_to_int)

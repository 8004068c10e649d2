"""Programmed outcomes: what happens to the next calls for a model or with a key."""

from collections import deque
from dataclasses import dataclass
from itertools import islice

from simulator.faults import Fault, to_word


@dataclass(slots=True)
class Script:
    """The remaining outcomes for one model, one key, or one model with one key."""

    model: str | None
    key_hash: str | None
    remaining: deque[Fault]


class Scripts:
    """All scripts, and the position in each outcome list of a control."""

    def __init__(self) -> None:
        self._scripts: dict[tuple[str | None, str | None], Script] = {}
        self._positions: dict[tuple[str, str, tuple[Fault, ...]], int] = {}

    def replace(self, model: str | None, key_hash: str | None, outcomes: tuple[Fault, ...]) -> Script:
        """Replace what was programmed for this model and key."""
        script = Script(model, key_hash, deque(outcomes))
        self._scripts[model, key_hash] = script
        return script

    def clear(self) -> None:
        self._scripts.clear()
        self._positions.clear()

    def next(self, model: str, key_hash: str) -> Fault | None:
        """Take the next outcome of the most specific script that has one left."""
        if not self._scripts:
            return None
        for owner in ((model, key_hash), (model, None), (None, key_hash)):
            script = self._scripts.get(owner)
            if script is not None and script.remaining:
                return script.remaining.popleft()
        return None

    def next_in_list(self, model: str, key_hash: str, outcomes: tuple[Fault, ...]) -> Fault | None:
        """The next outcome of a list given by control; None when the list is used up."""
        owner = (model, key_hash, outcomes)
        position = self._positions.get(owner, 0)
        self._positions[owner] = position + 1
        return next(islice(outcomes, position, None), None)

    def to_json(self) -> list[dict[str, object]]:
        return [
            {
                "model": script.model,
                "key_hash": script.key_hash,
                "outcomes": [to_word(fault) for fault in script.remaining],
            }
            for script in self._scripts.values()
        ]

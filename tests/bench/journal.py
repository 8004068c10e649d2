"""The simulator's journal, read from its file, which costs the simulator nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from simulator.journal import CallOutcome, JournalEntry
from tests.bench.figures import Span


@dataclass(slots=True)
class JournalTail:
    """The calls that began after this was made."""

    path: Path
    offset: int
    #: The calls that ended, and lines of both kinds.
    ended: list[JournalEntry]
    #: How many calls have begun.
    begun: int = 0

    def read(self) -> int:
        """Read what is new; return how many calls have ended so far."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self.offset += len(whole) + 1
            entries = [msgspec.json.decode(line, type=JournalEntry) for line in whole.split(b"\n")]
            self.ended += [entry for entry in entries if entry.finished_at is not None]
            self.begun += sum(entry.finished_at is None for entry in entries)
        return len(self.ended)

    def spans(self) -> Sequence[Span]:
        """Return from when to when each call that ended well took, as the provider saw it."""
        return [
            Span(entry.started_at, entry.finished_at)
            for entry in self.ended
            if entry.finished_at is not None and entry.outcome == CallOutcome.OK
        ]


def tail(path: Path) -> JournalTail:
    """Follow the journal from its present end."""
    return JournalTail(path, path.stat().st_size, [])

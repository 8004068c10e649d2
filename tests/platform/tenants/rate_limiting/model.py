"""A sliding window in plain Python: every entry by itself, nothing merged, nothing clever. Times in microseconds."""

from dataclasses import dataclass, field


@dataclass
class Entry:
    at: int
    number: int


@dataclass
class PlainWindow:
    limit: int
    span: int
    entries: list[Entry] = field(default_factory=list)

    def held(self, now: int, lateness: int = 0) -> int:
        """Return what counts now: all that was let in within the last span."""
        return sum(entry.number for entry in self.entries if entry.at > now - self.span - lateness)

    def fits(self, now: int, number: int, lateness: int = 0) -> bool:
        return self.held(now, lateness) + number <= self.limit

    def wait(self, now: int, number: int) -> int:
        """Return when so much fits, if nothing else is let in."""
        ends = (entry.at + self.span for entry in self.entries if entry.at + self.span > now)
        return next(end for end in sorted(ends) if self.fits(end, number)) - now

    def note(self, now: int, number: int) -> Entry:
        entry = Entry(now, number)
        self.entries.append(entry)
        return entry

    def most_at_once(self) -> int:
        """Return the most that any span of this length holds. A fullest one ends with an entry."""
        return max((self.held(entry.at) - self._after(entry.at) for entry in self.entries), default=0)

    def _after(self, moment: int) -> int:
        return sum(entry.number for entry in self.entries if entry.at > moment)

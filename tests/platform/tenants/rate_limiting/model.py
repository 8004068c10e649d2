"""Reference model of a sliding window: every entry on its own, nothing merged. Times in microseconds."""

from dataclasses import dataclass, field


@dataclass
class WindowEntry:
    at: int
    number: int


@dataclass
class PlainWindow:
    limit: int
    span: int
    entries: list[WindowEntry] = field(default_factory=list)

    def held(self, now: int, lateness: int = 0) -> int:
        """Return what counts now: everything admitted within the last span."""
        return sum(entry.number for entry in self.entries if entry.at > now - self.span - lateness)

    def fits(self, now: int, number: int, lateness: int = 0) -> bool:
        return self.held(now, lateness) + number <= self.limit

    def wait(self, now: int, number: int) -> int:
        """Return in how many microseconds the number fits, if nothing else is admitted."""
        ends = (entry.at + self.span for entry in self.entries if entry.at + self.span > now)
        return next(end for end in sorted(ends) if self.fits(end, number)) - now

    def record(self, now: int, number: int) -> WindowEntry:
        entry = WindowEntry(now, number)
        self.entries.append(entry)
        return entry

    def peak(self) -> int:
        """Return the most that any span of this length holds. One of the fullest ends with an entry."""
        return max((self.held(entry.at) - self._after(entry.at) for entry in self.entries), default=0)

    def _after(self, moment: int) -> int:
        return sum(entry.number for entry in self.entries if entry.at > moment)

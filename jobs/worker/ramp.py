"""The ramp of a worker's slots: a few are open at first, and more are opened while all open ones are taken."""

#: How long it takes to open all slots.
OPENING_SECONDS = 2.0
#: How long it takes to close all but the initial slots, while they are not needed.
CLOSING_SECONDS = 30.0


class SlotRamp:
    """Spreads the starts of many jobs over time (against a thundering herd).

    Calls of equal length that start together also end together, and then wait for each other to be finished and
    started: 500 calls of 3 s lose a tenth of the time that way, forever. Started over two seconds, they stay apart.
    """

    def __init__(self, initial: int, slots: int, now: float) -> None:
        self._initial = float(min(initial, slots))
        self._slots = slots
        self._open = self._initial
        self._updated_at = now

    def open_slots(self, taken: int, now: float) -> int:
        """Return how many slots are open while `taken` are taken. Times are in seconds, by any monotonic clock."""
        seconds, self._updated_at = now - self._updated_at, now
        per_second = self._slots / OPENING_SECONDS if taken >= int(self._open) else -self._slots / CLOSING_SECONDS
        self._open = min(max(self._open + per_second * seconds, self._initial), float(self._slots))
        return int(self._open)

    @property
    def is_opening(self) -> bool:
        """Whether more slots may open soon, without any event that says so."""
        return self._open < self._slots

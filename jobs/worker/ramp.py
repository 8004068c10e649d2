"""How many slots of a worker are open: a few at first, and more while all that are open are taken."""

#: So long it takes until all slots are open.
OPENING_SECONDS = 2.0
#: So long it takes until as few as at first are, when they are not needed.
CLOSING_SECONDS = 30.0


class SlotRamp:
    """Spreads out a crowd.

    Calls of one length that begin at once also end at once, and then wait for each other to be ended and begun: with
    500 calls of 3 s for a tenth of the time, for ever. Begun over two seconds they never meet again.
    """

    def __init__(self, first: int, slots: int, now: float) -> None:
        self._initial = float(min(first, slots))
        self._slots = slots
        self._open = self._initial
        self._updated_at = now

    def open_slots(self, taken: int, now: float) -> int:
        """Return how many are open, when so many are taken. Times are in seconds, by any clock that runs on."""
        seconds, self._updated_at = now - self._updated_at, now
        pace = self._slots / OPENING_SECONDS if taken >= int(self._open) else -self._slots / CLOSING_SECONDS
        self._open = min(max(self._open + pace * seconds, self._initial), float(self._slots))
        return int(self._open)

    @property
    def is_opening(self) -> bool:
        """There will be more soon, though nobody says so."""
        return self._open < self._slots

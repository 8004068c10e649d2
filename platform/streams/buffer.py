"""The last events of a stream in memory: bounded in bytes, read from any place, waited on by many."""

import asyncio
from collections.abc import Iterable, Sequence

from streams.entries import LoggedEvent, StreamEnd
from streams.errors import CursorAhead, CursorExpired

#: Of memory for each event, beside its data.
EVENT_OVERHEAD_BYTES = 112
#: A reader who is far behind gets so many at a time.
MAX_READ_EVENTS = 256


class EventBuffer:
    """Holds the newest events, in order and without a gap. Readers hold only a place, so a slow one costs nothing."""

    __slots__ = ("_max_bytes", "_waiting", "end", "events", "held_bytes", "last", "received_bytes")

    def __init__(self, max_bytes: int, *, last: int = 0) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self._waiting: list[asyncio.Future[bool]] = []
        self.events: list[LoggedEvent] = []
        #: The seq of the newest event.
        self.last = last
        #: All that ever came, with what is no longer held.
        self.received_bytes = 0
        self.end: StreamEnd | None = None

    @property
    def first(self) -> int:
        """The seq of the oldest event that is held."""
        return self.last - len(self.events) + 1

    @property
    def data_bytes(self) -> int:
        """Of all events that ever came, without what they take of memory beside it."""
        return self.received_bytes - EVENT_OVERHEAD_BYTES * self.last

    def append(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Number the frames and take them in."""
        seq = self.last
        self.take([LoggedEvent(seq := seq + 1, name, data) for name, data in frames])

    def take(self, events: Sequence[LoggedEvent]) -> None:
        """Take in the events that come next."""
        if not events:
            return
        size = EVENT_OVERHEAD_BYTES * len(events)
        for event in events:
            size += len(event.data)
        self.events += events
        self.last = events[-1].seq
        self.held_bytes += size
        self.received_bytes += size
        if self.held_bytes > self._max_bytes:
            self._trim()
        self.wake()

    def holds_after(self, seq: int) -> bool:
        """Say whether every event after this one is held."""
        return self.first - 1 <= seq <= self.last

    def after(self, seq: int) -> list[LoggedEvent]:
        """Return events after this one, as far as they have come. Raises `CursorExpired` and `CursorAhead`."""
        begin = seq - self.first + 1
        if begin < 0:
            raise CursorExpired(f"Event {seq + 1} is no longer stored; the oldest stored is {self.first}.")
        if seq > self.last:
            raise CursorAhead(f"There is no event {seq} yet; the last is {self.last}.")
        return self.events[begin : begin + MAX_READ_EVENTS]

    def release_events(self) -> None:
        """Hold nothing of what has come."""
        # Not cleared: a flush may be at it.
        self.events = []
        self.held_bytes = 0

    def finish(self, end: StreamEnd) -> None:
        """No more events will come."""
        self.end = end
        self.wake()

    def wake(self) -> None:
        """Let everybody look who waits."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                _wake(waiter, True)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until something happens. False when nothing did in time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(seconds, _wake, waiter, False) if seconds is not None else None
        try:
            return await waiter
        finally:
            if timer:
                timer.cancel()
            # `wake` has taken us off the list; the timer or a cancellation has not.
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    async def wait_after(self, seq: int) -> list[LoggedEvent]:
        """Return events after this one as soon as there are any; none when the stream has ended there."""
        while not (events := self.after(seq)) and self.end is None:
            await self.wait()
        return events

    def _trim(self) -> None:
        """Let go of the oldest, and of a little more than needed, so that it is not done for every event."""
        goal, dropped = self._max_bytes * 15 // 16, 0
        while self.held_bytes > goal and dropped < len(self.events) - 1:
            self.held_bytes -= len(self.events[dropped].data) + EVENT_OVERHEAD_BYTES
            dropped += 1
        del self.events[:dropped]


def _wake(waiter: "asyncio.Future[bool]", happened: bool) -> None:
    if not waiter.done():
        waiter.set_result(happened)

"""Events of one stream in memory: `EventBuffer`, bounded in bytes, and `LocalStream`, a stream this process serves.

`LocalStream` is where the two tasks of a live stream meet in one process: the writer task appends to it (through
`streams.writer.EventLogWriter`), every reader task waits on it (through `streams.reader.LocalSource`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

from streams.entries import LoggedEvent, StreamEnd, StreamInfo, StreamRecord
from streams.errors import CursorAhead, CursorExpired

#: Memory of each event in addition to its data.
EVENT_OVERHEAD_BYTES = 112
#: A reader that is far behind gets at most this many events per read.
MAX_READ_EVENTS = 256

#: Why a stream was canceled: it had no reader, a client or operator requested it, or the process shuts down.
CancelReason: TypeAlias = Literal["unread", "requested", "shutdown"]


class EventBuffer:
    """The newest events of a stream, in order and without a gap, for any number of readers.

    A reader holds only its position, so a slow one costs no memory.
    """

    __slots__ = ("_max_bytes", "_waiting", "end", "events", "held_bytes", "last", "received_bytes")

    def __init__(self, max_bytes: int, *, last: int = 0) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self._waiting: list[asyncio.Future[bool]] = []
        self.events: list[LoggedEvent] = []
        #: Number of the newest event.
        self.last = last
        #: Size of all events ever received, those already trimmed included.
        self.received_bytes = 0
        self.end: StreamEnd | None = None

    @property
    def first(self) -> int:
        """Number of the oldest event that is held."""
        return self.last - len(self.events) + 1

    @property
    def data_bytes(self) -> int:
        """Size of the data of all events ever received, without their overhead in memory."""
        return self.received_bytes - EVENT_OVERHEAD_BYTES * self.last

    def append(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Number the frames and add them as events."""
        seq = self.last
        self.take([LoggedEvent(seq := seq + 1, name, data) for name, data in frames])

    def take(self, events: Sequence[LoggedEvent]) -> None:
        """Add the next events, trim the oldest beyond the bound, and wake all readers."""
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
        """Return whether every event after `seq` is held."""
        return self.first - 1 <= seq <= self.last

    def after(self, seq: int) -> list[LoggedEvent]:
        """Return the events after `seq` received so far, at most `MAX_READ_EVENTS`.

        Raises `CursorExpired` and `CursorAhead`.
        """
        begin = seq - self.first + 1
        if begin < 0:
            raise CursorExpired(f"Event {seq + 1} is no longer stored; the oldest stored is {self.first}.")
        if seq > self.last:
            raise CursorAhead(f"There is no event {seq} yet; the last is {self.last}.")
        return self.events[begin : begin + MAX_READ_EVENTS]

    def release_events(self) -> None:
        """Free the memory of all events; the position stays."""
        # A new list, not `clear()`: a flush may be iterating over the old one.
        self.events = []
        self.held_bytes = 0

    def finish(self, end: StreamEnd) -> None:
        """Set the end: no more events will come."""
        self.end = end
        self.wake()

    def wake(self) -> None:
        """Wake every waiting reader."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                _wake(waiter, True)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until new events, the end or a status change; False on timeout."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(seconds, _wake, waiter, False) if seconds is not None else None
        try:
            return await waiter
        finally:
            if timer:
                timer.cancel()
            # `wake` removes the waiter from the list; a timeout and a cancellation do not.
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _trim(self) -> None:
        """Drop the oldest events, a little more than necessary, so that it is not repeated for every event."""
        goal, dropped = self._max_bytes * 15 // 16, 0
        while self.held_bytes > goal and dropped < len(self.events) - 1:
            self.held_bytes -= len(self.events[dropped].data) + EVENT_OVERHEAD_BYTES
            dropped += 1
        del self.events[:dropped]


def _wake(waiter: "asyncio.Future[bool]", happened: bool) -> None:
    if not waiter.done():
        waiter.set_result(happened)


class LocalStream(EventBuffer):
    """A stream that this process serves: its events, its readers in this process, and the task that writes it.

    Readers in this process see an event as soon as it is appended; the log in Redis follows. Only
    `streams.writer.EventLogWriter` appends to it.
    """

    __slots__ = (
        "_on_unread",
        "_readers",
        "_task",
        "_unread_at",
        "cancel_reason",
        "detached",
        "ended_at",
        "info",
        "process",
    )

    def __init__(self, info: StreamInfo, *, process: str, max_bytes: int, detached: bool = False) -> None:
        super().__init__(max_bytes)
        self.info = info
        self.process = process
        #: Runs to its end even without a reader.
        self.detached = detached
        self.cancel_reason: CancelReason | None = None
        #: By the monotonic clock.
        self.ended_at: float | None = None
        self._readers = 0
        self._unread_at: float | None = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._on_unread: Callable[[LocalStream], None] | None = None

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def readers(self) -> int:
        """Number of readers in this process."""
        return self._readers

    @property
    def is_running(self) -> bool:
        """Whether a task of this process still writes it, and so could be canceled."""
        return self._task is not None and self.end is None

    @property
    def unread_since(self) -> float | None:
        """When the last local reader left, by the monotonic clock; None while there is one, and after the end."""
        return None if self.end else self._unread_at

    @property
    def unread_seconds(self) -> float:
        """For how long it has had no local reader; 0 while there is one, and after the end."""
        if self._unread_at is None or self.end:
            return 0.0
        return time.monotonic() - self._unread_at

    @property
    def record(self) -> StreamRecord:
        """The record that other processes read, as of now."""
        return StreamRecord(self.info, self.process, self.last, self.end)

    def set_task(self, task: asyncio.Task[None], on_unread: "Callable[[LocalStream], None]") -> None:
        """Set the writer task, and the callback for the moment when the last local reader leaves."""
        self._task, self._on_unread = task, on_unread

    def add_reader(self) -> None:
        self._readers += 1
        self._unread_at = None

    def remove_reader(self) -> None:
        self._readers -= 1
        if not self._readers and self.end is None:
            self._unread_at = time.monotonic()
            if self._on_unread:
                self._on_unread(self)

    def cancel(self, reason: CancelReason) -> bool:
        """Cancel the writer task, once. False if that was done before, or the stream has ended or has no task."""
        if self.end or self.cancel_reason or not self._task:
            return False
        self.cancel_reason = reason
        return self._task.cancel()

    def finish(self, end: StreamEnd) -> None:
        """Set the end: no more events will come. The first end counts."""
        if self.end is None:
            self.ended_at = time.monotonic()
            super().finish(end)

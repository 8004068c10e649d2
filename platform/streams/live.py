"""A stream that this process serves: its events in memory, who reads them here, and how far the log has them."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from streams.buffer import EventBuffer
from streams.entries import StreamEnd, StreamInfo, StreamRecord

#: Why a stream was canceled: nobody reads it, somebody asked for it, the process stops.
CancelReason: TypeAlias = Literal["unread", "requested", "shutdown"]


class LocalStream(EventBuffer):
    """What is appended is seen by readers here at once; the log follows."""

    __slots__ = (
        "_on_unread",
        "_readers",
        "_task",
        "_unread_at",
        "about",
        "cancel_reason",
        "detached",
        "ended_at",
        "process",
    )

    def __init__(self, about: StreamInfo, *, process: str, max_bytes: int, detached: bool = False) -> None:
        super().__init__(max_bytes)
        self.about = about
        self.process = process
        #: Runs to its end whether anybody reads it or not.
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
        return self.about.id

    @property
    def readers(self) -> int:
        """How many read it in this process."""
        return self._readers

    @property
    def is_running(self) -> bool:
        """Say whether somebody here writes it still, and could be canceled."""
        return self._task is not None and self.end is None

    @property
    def unread_since(self) -> float | None:
        """Since when nobody has read it here, by the monotonic clock; None while somebody does, and after its end."""
        return None if self.end else self._unread_at

    @property
    def unread_seconds(self) -> float:
        """For how long nobody has read it here; 0 while somebody does, and once it has ended."""
        if self._unread_at is None or self.end:
            return 0.0
        return time.monotonic() - self._unread_at

    @property
    def record(self) -> StreamRecord:
        """What other processes must know of it, as of now."""
        return StreamRecord(self.about, self.process, self.last, self.end)

    def set_task(self, task: asyncio.Task[None], on_unread: "Callable[[LocalStream], None]") -> None:
        """Say who writes it, and whom to tell when the last reader leaves."""
        self._task, self._on_unread = task, on_unread

    def attach(self) -> None:
        """Count one reader more."""
        self._readers += 1
        self._unread_at = None

    def detach(self) -> None:
        """Count one reader less."""
        self._readers -= 1
        if not self._readers and self.end is None:
            self._unread_at = time.monotonic()
            if self._on_unread:
                self._on_unread(self)

    def cancel(self, reason: CancelReason) -> bool:
        """Cancel whoever writes it, once. False when that was done before, or it has ended."""
        if self.end or self.cancel_reason or not self._task:
            return False
        self.cancel_reason = reason
        return self._task.cancel()

    def finish(self, end: StreamEnd) -> None:
        """No more events will come. The first end counts."""
        if self.end is None:
            self.ended_at = time.monotonic()
            super().finish(end)

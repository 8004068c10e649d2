"""Crash points, where this process can be made to kill itself to prove that nothing is lost. Inert unless armed."""

import os
import signal
import threading
from dataclasses import dataclass
from enum import StrEnum

from django.core.exceptions import ImproperlyConfigured


class CrashPoint(StrEnum):
    """The places, in the order in which a job passes them."""

    #: Jobs are claimed, and their work has not started.
    AFTER_CLAIM = "after_claim"
    #: The usage record of a call is open, and the call has not been made.
    BEFORE_CALL = "before_call"
    #: The provider has sent a part of its response.
    IN_CALL = "in_call"
    #: Outcomes, or a new job, are written, and not committed.
    BEFORE_COMMIT = "before_commit"
    #: They are committed, and not yet published.
    AFTER_COMMIT = "after_commit"
    #: The lease is renewed, and the result of the heartbeat has not been processed.
    IN_HEARTBEAT = "in_heartbeat"
    #: Lost and overdue jobs are moved, and that is not committed.
    IN_SWEEP = "in_sweep"
    #: A delivery is claimed but not sent.
    BEFORE_WEBHOOK = "before_webhook"
    #: The receiver has responded, and that is not stored.
    AFTER_WEBHOOK = "after_webhook"
    #: The members of a batch are inserted but not committed.
    IN_EXPAND = "in_expand"
    #: The outcome of a batch is written, and not committed.
    IN_FINALIZE = "in_finalize"


@dataclass(frozen=True, slots=True)
class CrashAt:
    """A point, and the number of the hit, from 1, at which to crash."""

    point: CrashPoint
    hit_number: int


class _ArmedCrashPoint:
    """An armed point. Thread-safe."""

    def __init__(self, at: CrashAt) -> None:
        self._at, self._hits, self._lock = at, 0, threading.Lock()

    def hit(self, point: CrashPoint) -> None:
        if point is not self._at.point:
            return
        with self._lock:
            self._hits += 1
            if self._hits == self._at.hit_number:
                # No handler, no `finally`, no flush: as when the machine fails.
                os.kill(os.getpid(), signal.SIGKILL)


_armed: _ArmedCrashPoint | None = None


def crash_point(point: CrashPoint) -> None:
    """Kill this process here, if it is armed for this point."""
    if _armed is not None:
        _armed.hit(point)


def arm(at: CrashAt | None) -> None:
    """Arm this process for a point; None disarms it."""
    global _armed
    _armed = _ArmedCrashPoint(at) if at else None


def read_crash_at(text: str) -> CrashAt | None:
    """Parse `point:n`; return None for an empty text. Raises `ImproperlyConfigured` for anything else."""
    if not text:
        return None
    name, _, hit_number = text.partition(":")
    if name not in set(CrashPoint) or not (
        hit_number.isascii() and hit_number.isdigit() and 0 < int(hit_number) < 10**9
    ):
        raise ImproperlyConfigured(
            f"NIGHTDESK_CRASH_AT must be point:n, such as after_claim:1; got {text!r}. "
            f"Points are {', '.join(CrashPoint)}; n is the hit count, from 1."
        )
    return CrashAt(CrashPoint(name), int(hit_number))

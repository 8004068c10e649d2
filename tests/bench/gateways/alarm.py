"""A timer with microsecond precision (Linux): the event loop's own has milliseconds."""

import ctypes
import os
from typing import ClassVar

CLOCK_MONOTONIC = 1
NON_BLOCKING = os.O_NONBLOCK | os.O_CLOEXEC
ABSOLUTE = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Moment(ctypes.Structure):
    _fields_: ClassVar = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    _fields_: ClassVar = [("every", _Moment), ("at", _Moment)]


class Alarm:
    """A file descriptor that becomes readable at the set time."""

    def __init__(self) -> None:
        self.descriptor = _checked(_libc.timerfd_create(CLOCK_MONOTONIC, NON_BLOCKING))

    def set(self, moment: float) -> None:
        """Fire at a time of `time.monotonic()`; immediately if it has passed."""
        seconds = int(moment)
        # Zero would switch it off.
        at = _Moment(seconds, max(int((moment - seconds) * 1e9), 1))
        setting = _Setting(_Moment(0, 0), at)
        _checked(_libc.timerfd_settime(self.descriptor, ABSOLUTE, ctypes.byref(setting), None))

    def close(self) -> None:
        os.close(self.descriptor)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer

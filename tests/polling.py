"""Wait for a state, not for a time."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(read: Callable[[], T | None], *, seconds: float = 20, every: float = 0.02) -> T:
    """Return the first true value of `read`; fail when there is none in time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not (found := read()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Nothing came within {seconds:g} s; the last was {found!r}.")
        pause.wait(every)
    return found


async def wait_until(holds: Callable[[], object], *, seconds: float = 20, every: float = 0.005) -> None:
    """Run the event loop until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(every)

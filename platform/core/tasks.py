"""Helpers for asyncio tasks that run in the background."""

import asyncio
from typing import Any

RETRY_CANCEL_SECONDS = 0.1


async def cancel_and_wait(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and return only when it has ended; None is a task that was never started.

    One `cancel()` may not be enough: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows a cancellation
    that arrives in the same loop iteration as the result it waits for.
    """
    while task and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=RETRY_CANCEL_SECONDS)

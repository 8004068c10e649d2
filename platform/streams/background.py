"""Tasks in the background, and how they are stopped for certain."""

import asyncio
from typing import Any

RETRY_CANCEL_SECONDS = 0.1


async def cancel_and_wait(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task until it has ended.

    Once may not be enough: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows a cancellation that comes
    just when what it waits for is done.
    """
    while task and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=RETRY_CANCEL_SECONDS)

"""Tasks in the background, and how they are stopped for certain."""

import asyncio
from typing import Any

AGAIN_SECONDS = 0.1


async def stop_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task until it has ended.

    Once may not be enough: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows a cancellation that comes
    just when what it waits for is done.
    """
    while task and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_SECONDS)

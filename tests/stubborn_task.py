"""A task that does not end by its first cancellation."""

import asyncio
from contextlib import suppress


async def ignore_first_cancellation() -> None:
    """Run until canceled twice: `asyncio.wait_for` of Python 3.11, which redis-py uses, may swallow a cancellation."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    await asyncio.sleep(60)

"""Helpers for asyncio tasks that run in the background."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

R = TypeVar("R")

log = structlog.get_logger(__name__)

#: A task may take this long to clean up before it is canceled again.
RETRY_CANCEL_SECONDS = 0.5


class BackgroundTasks:
    """Starts tasks that no caller awaits, and holds a reference to each until it ends.

    The event loop itself holds only weak references, so a task that nothing else refers to may vanish half-way. An
    exception that ends a task is logged as `background_task_failed`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, R], *, name: str | None = None) -> "asyncio.Task[R]":
        """Start `work` on the running event loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def wait(self, timeout_seconds: float) -> None:
        """Wait until all tasks have ended, or for `timeout_seconds`; tasks that have not ended by then keep running."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        await cancel_and_wait(*self._tasks)

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background_task_failed", task=task.get_name(), exc_info=error)


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and return only when all have ended; None is a task that was never started.

    One `cancel()` may not be enough: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows a cancellation
    that arrives in the same loop iteration as the result it waits for.
    """
    while running := {task for task in tasks if task and not task.done()}:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=RETRY_CANCEL_SECONDS)

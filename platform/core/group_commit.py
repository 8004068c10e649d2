"""Group commit: what many tasks ask for at about the same time is done in one go.

A group takes in whoever came while the one before it was under way, so that a lone item never waits for company and
a crowd shares its costs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.tasks import BackgroundTasks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _PendingItem(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"


class GroupCommitter(Generic[Item, Result]):
    """Hands items to `work` in groups of at most `largest`, with at most `at_once` groups under way.

    `work` returns one result for each item, in order. If it raises one of `shared`, that is everybody's error: the
    whole group failed. Any other error may be one item's fault, so each item is then tried alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_group_size: int,
        max_concurrent_groups: int = 1,
        group_errors: tuple[type[Exception], ...] = (),
    ) -> None:
        self._work = work
        self._largest = max_group_size
        self._free_slots = max_concurrent_groups
        self._shared = group_errors
        self._pending: deque[_PendingItem[Item, Result]] = deque()
        self._tasks = BackgroundTasks()

    async def submit(self, item: Item) -> Result:
        """Do it in the next group, and return what came of it. Canceled before its group began, it is left out."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending.append(_PendingItem(item, future))
        if self._free_slots:
            self._free_slots -= 1
            self._tasks.spawn(self._drain(), name="group-commit")
        return await future

    async def _drain(self) -> None:
        try:
            while group := self._next_group():
                await self._run_group(group)
        finally:
            self._free_slots += 1

    def _next_group(self) -> list[_PendingItem[Item, Result]]:
        group: list[_PendingItem[Item, Result]] = []
        while self._pending and len(group) < self._largest:
            waiting = self._pending.popleft()
            if not waiting.future.done():
                group.append(waiting)
        return group

    async def _run_group(self, group: list[_PendingItem[Item, Result]]) -> None:
        try:
            results = await self._work([waiting.item for waiting in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, self._shared):
                _fail_group(group, error)
                return
            for waiting in group:
                await self._run_group([waiting])
        else:
            for waiting, result in zip(group, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)


def _fail_group(group: Sequence[_PendingItem[Item, Result]], error: Exception) -> None:
    for waiting in group:
        if not waiting.future.done():
            waiting.future.set_exception(error)

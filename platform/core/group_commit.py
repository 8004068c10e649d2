"""Group commit: items that many tasks submit at about the same time are processed in one batch.

A group contains the items that were submitted while the previous group was running. So a single item never waits for
others, and under load many items share the cost of a group.
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
    """Calls `work` with groups of at most `max_group_size` items, in at most `max_concurrent_groups` calls at a time.

    `work` returns one result per item, in order. If it raises one of `group_errors`, all items of the group fail
    with it. Any other error may be caused by one item, so each item is then processed alone.
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
        self._max_group_size = max_group_size
        self._free_slots = max_concurrent_groups
        self._group_errors = group_errors
        self._pending: deque[_PendingItem[Item, Result]] = deque()
        self._tasks = BackgroundTasks()

    async def submit(self, item: Item) -> Result:
        """Process the item in the next group and return its result. If canceled before that, it is left out."""
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
        while self._pending and len(group) < self._max_group_size:
            pending = self._pending.popleft()
            if not pending.future.done():
                group.append(pending)
        return group

    async def _run_group(self, group: list[_PendingItem[Item, Result]]) -> None:
        try:
            results = await self._work([pending.item for pending in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, self._group_errors):
                _fail_group(group, error)
                return
            for pending in group:
                await self._run_group([pending])
        else:
            for pending, result in zip(group, results, strict=True):
                if not pending.future.done():
                    pending.future.set_result(result)


def _fail_group(group: Sequence[_PendingItem[Item, Result]], error: Exception) -> None:
    for pending in group:
        if not pending.future.done():
            pending.future.set_exception(error)

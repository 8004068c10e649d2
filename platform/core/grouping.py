"""Group commit: what many tasks ask for at about the same time is done in one go.

A group takes in whoever came while the one before it was under way, so that a lone item never waits for company and
a crowd shares its costs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"


class Grouped(Generic[Item, Result]):
    """Hands items to `work` in groups of at most `largest`, with at most `at_once` groups under way.

    `work` returns one result for each item, in order. If it raises one of `shared`, that is everybody's error: the
    whole group failed. Any other error may be one item's fault, so each item is then tried alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        largest: int,
        at_once: int = 1,
        shared: tuple[type[Exception], ...] = (),
    ) -> None:
        self._work = work
        self._largest = largest
        self._free = at_once
        self._shared = shared
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def do(self, item: Item) -> Result:
        """Do it in the next group, and return what came of it. Canceled before its group began, it is left out."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._work_off())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return await future

    async def _work_off(self) -> None:
        try:
            while group := self._next_group():
                await self._do_group(group)
        finally:
            self._free += 1

    def _next_group(self) -> list[_Waiting[Item, Result]]:
        group: list[_Waiting[Item, Result]] = []
        while self._waiting and len(group) < self._largest:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                group.append(waiting)
        return group

    async def _do_group(self, group: list[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._work([waiting.item for waiting in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, self._shared):
                _fail(group, error)
                return
            for waiting in group:
                await self._do_group([waiting])
        else:
            for waiting, result in zip(group, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)


def _fail(group: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
    for waiting in group:
        if not waiting.future.done():
            waiting.future.set_exception(error)

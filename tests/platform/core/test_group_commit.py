"""Group commit."""

import asyncio
from collections.abc import Sequence

import pytest

from core.group_commit import GroupCommitter
from tests.polling import wait_until


class Outage(Exception): ...


class Till:
    """Work that waits to be let go, and remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Semaphore(0)
        self.errors: dict[int, Exception] = {}

    async def work(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        await self.gate.acquire()
        for item in items:
            if item in self.errors:
                raise self.errors[item]
        return [item * 10 for item in items]

    def open(self, times: int = 100) -> None:
        for _ in range(times):
            self.gate.release()

    async def begun(self, groups: int) -> None:
        await wait_until(lambda: len(self.groups) >= groups, seconds=5)


async def test_a_single_item_is_processed_immediately() -> None:
    till = Till()
    till.open()
    assert await GroupCommitter(till.work, max_group_size=10).submit(1) == 10
    assert till.groups == [[1]]


async def test_items_submitted_during_a_group_share_the_next_group() -> None:
    till = Till()
    grouped = GroupCommitter(till.work, max_group_size=10)
    first = asyncio.create_task(grouped.submit(1))
    await till.begun(1)
    others = [asyncio.create_task(grouped.submit(item)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    till.open()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert till.groups == [[1], [2, 3, 4]]


async def test_a_group_is_never_larger_than_allowed() -> None:
    till = Till()
    till.open()
    grouped = GroupCommitter(till.work, max_group_size=2)
    assert await asyncio.gather(*(grouped.submit(item) for item in range(5))) == [0, 10, 20, 30, 40]
    assert [len(group) for group in till.groups] == [2, 2, 1]


async def test_the_number_of_concurrent_groups_is_bounded() -> None:
    till = Till()
    grouped = GroupCommitter(till.work, max_group_size=1, max_concurrent_groups=2)
    tasks = [asyncio.create_task(grouped.submit(item)) for item in range(4)]
    await till.begun(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert till.groups == [[0], [1]]
    till.open()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30]


async def test_the_error_of_one_item_does_not_fail_the_others() -> None:
    till = Till()
    till.open()
    till.errors[2] = ValueError("two")
    grouped = GroupCommitter(till.work, max_group_size=10)
    results = await asyncio.gather(*(grouped.submit(item) for item in (1, 2, 3)), return_exceptions=True)
    assert [results[0], results[2]] == [10, 30]
    assert isinstance(results[1], ValueError)


async def test_a_group_error_fails_all_items_without_retrying_each() -> None:
    till = Till()
    till.open()
    till.errors[2] = Outage()
    grouped = GroupCommitter(till.work, max_group_size=10, group_errors=(Outage,))
    results = await asyncio.gather(*(grouped.submit(item) for item in (1, 2, 3)), return_exceptions=True)
    assert all(isinstance(result, Outage) for result in results)
    assert till.groups == [[1, 2, 3]]


async def test_groups_continue_after_an_error() -> None:
    till = Till()
    till.open()
    till.errors[1] = ValueError("one")
    grouped = GroupCommitter(till.work, max_group_size=10)
    with pytest.raises(ValueError, match="one"):
        await grouped.submit(1)
    assert await grouped.submit(2) == 20


async def test_an_item_canceled_before_its_group_is_left_out() -> None:
    till = Till()
    grouped = GroupCommitter(till.work, max_group_size=10)
    first = asyncio.create_task(grouped.submit(1))
    await till.begun(1)
    second, third = asyncio.create_task(grouped.submit(2)), asyncio.create_task(grouped.submit(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    till.open()
    assert (await first, await third) == (10, 30)
    assert till.groups == [[1], [3]]

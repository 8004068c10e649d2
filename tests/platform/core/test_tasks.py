"""Background tasks: they are kept until they end, and their failures are logged."""

import asyncio
import gc

from structlog.testing import capture_logs

from core.tasks import BackgroundTasks, cancel_and_wait
from tests.stubborn_task import ignore_first_cancellation


async def test_a_spawned_task_survives_garbage_collection() -> None:
    tasks, done = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    tasks.spawn(work())
    gc.collect()

    await asyncio.wait_for(done.wait(), 5)


async def test_the_failure_of_a_task_is_logged_with_its_name() -> None:
    tasks = BackgroundTasks()

    async def fail() -> None:
        raise ValueError("broken")

    with capture_logs() as logs:
        tasks.spawn(fail(), name="report")
        await tasks.wait(5)
        await asyncio.sleep(0)

    assert [(entry["event"], entry["task"]) for entry in logs] == [("background_task_failed", "report")]


async def test_waiting_for_tasks_is_bounded_and_cancels_none() -> None:
    tasks = BackgroundTasks()
    task = tasks.spawn(asyncio.sleep(60))

    await tasks.wait(0.01)

    assert not task.done()
    await tasks.cancel()
    assert task.cancelled()


async def test_canceled_tasks_are_not_logged() -> None:
    tasks = BackgroundTasks()
    tasks.spawn(asyncio.sleep(60))

    with capture_logs() as logs:
        await tasks.cancel()

    assert logs == []


async def test_tasks_that_swallow_a_cancellation_are_canceled_again() -> None:
    tasks = BackgroundTasks()
    spawned = tasks.spawn(ignore_first_cancellation())
    others = [asyncio.create_task(ignore_first_cancellation()) for _ in range(2)]
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await tasks.cancel()
        await cancel_and_wait(None, *others)

    assert [task.cancelled() for task in (spawned, *others)] == [True] * 3

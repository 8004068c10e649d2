"""The poller of job states, without a reader."""

import asyncio
from unittest.mock import Mock

from api.live.job_state_poller import JobStatePoller
from tests.stubborn_task import ignore_first_cancellation


async def test_a_stopped_poller_has_ended_when_its_connections_close() -> None:
    poller = JobStatePoller(Mock(), Mock())
    task = poller._task = asyncio.create_task(ignore_first_cancellation())
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await poller.stop()

    assert task.cancelled()

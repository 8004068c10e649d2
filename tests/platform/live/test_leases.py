"""What running requests hold, and what nobody holds."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pytest_django import Settings
from redis.asyncio import Redis

from core import redis
from core.ids import new_uuid
from live.leases import RequestLeases
from tenants.rate_limiting.admission import admit, open_request_ids
from tests.platform.tenants.rate_limiting.requests import make_request


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Redis]:
    settings.LIVE_LEASE_SECONDS = 1
    yield redis.client(settings.REDIS_URL)
    await redis.close_clients()


async def test_an_account_of_a_request_that_nobody_runs_is_not_left_open(server: Redis) -> None:
    process, site = f"process_{new_uuid().hex}", f"site_{new_uuid().hex}"
    leases = RequestLeases(server, process)
    running, unheard, unaccounted = (
        make_request(site, process=process, open_usage_record=b"{}", concurrency=9) for _ in range(3)
    )
    leases.start()
    await admit(server, running)
    leases.add(running)
    # One whose account could be given to nobody is all that is known of its calls.
    await admit(server, unaccounted)
    leases.release(unaccounted.request_id, is_recorded=False)
    # Let in, too; but the answer was lost on its way.
    await admit(server, unheard)

    kept = {running.request_id, unaccounted.request_id}
    assert await open_request_ids(server, process) == {*kept, unheard.request_id}

    async with asyncio.timeout(20):
        while await open_request_ids(server, process) != kept:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.02)
    leases.release(running.request_id)
    await leases.stop()

    assert await open_request_ids(server, process) == {unaccounted.request_id}

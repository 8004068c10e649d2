"""Leases of running requests, and open calls that no request holds."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pytest_django import Settings
from redis.asyncio import Redis

from core import redis
from core.ids import new_uuid
from live.leases import RequestLeases
from tenants.rate_limiting.admission import open_request_ids
from tests.platform.tenants.rate_limiting.requests import admit, make_request
from tests.stubborn_task import ignore_first_cancellation


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Redis]:
    settings.LIVE_LEASE_SECONDS = 1
    yield redis.client(settings.REDIS_URL)
    await redis.close_clients()


async def test_an_open_call_without_a_request_is_deleted(server: Redis) -> None:
    process, site = f"process_{new_uuid().hex}", f"site_{new_uuid().hex}"
    leases = RequestLeases(server, process)
    running, orphaned, unrecorded = (
        make_request(site, process=process, open_usage_record=b"{}", concurrency=9) for _ in range(3)
    )
    leases.start()
    await admit(server, running)
    leases.add(running)
    # Its usage could not be recorded, so its open call is the only record of it.
    await admit(server, unrecorded)
    leases.release(unrecorded.request_id, is_recorded=False)
    # Admitted, too; but the reply of Redis was lost.
    await admit(server, orphaned)

    expected = {running.request_id, unrecorded.request_id}
    assert await open_request_ids(server, process) == {*expected, orphaned.request_id}

    async with asyncio.timeout(20):
        while await open_request_ids(server, process) != expected:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.02)
    leases.release(running.request_id)
    await leases.stop()

    assert await open_request_ids(server, process) == {unrecorded.request_id}


async def test_stopped_leases_are_renewed_no_more_when_the_connections_close(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing = asyncio.Event()

    async def renew(*_: object) -> None:
        renewing.set()
        await ignore_first_cancellation()

    monkeypatch.setattr("live.leases.renew", renew)
    leases = RequestLeases(server, f"process_{new_uuid().hex}")
    leases.start()
    async with asyncio.timeout(5):
        await renewing.wait()
        await leases.stop()

    assert "live-leases" not in [task.get_name() for task in asyncio.all_tasks()]

"""The rate limit status is what `admit` decides by, and reading it changes nothing."""

import asyncio
import random

import pytest
from pytest_django import Settings
from redis.asyncio import Redis

from core.redis import RedisUnavailable, blocking_client
from tenants.rate_limiting.scripts import Scripts
from tenants.rate_limiting.status import RateLimitSnapshot, read_windows
from tenants.rate_limiting.types import Admitted, OverRateLimit
from tenants.rate_limiting.windows import SlidingWindow
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock
from tests.platform.tenants.rate_limiting.requests import admit, make_request, request_limit, token_limit

LEASE_SECONDS = 30


async def read_status(settings: Settings, timed: Scripts, site: str, *windows: SlidingWindow) -> RateLimitSnapshot:
    def read() -> RateLimitSnapshot:
        with blocking_client(settings.REDIS_URL) as server:
            return read_windows(server, site, windows, timed)

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("seed", range(4))
async def test_the_status_is_the_quota_that_admit_returns(
    server: Redis, clock: Clock, timed: Scripts, shop: str, settings: Settings, seed: int
) -> None:
    chance = random.Random(seed)
    windows = (request_limit(5), request_limit(200, 3600), token_limit(500), request_limit(10**15, 86_400))

    now = 0
    for _ in range(40):
        now += round(chance.expovariate(0.2) * SECOND)
        await clock.set(now)
        before = await read_status(settings, timed, shop, *windows)
        outcome = await admit(server, make_request(shop, *windows, tokens=chance.randint(0, 200)), timed)
        assert isinstance(outcome, Admitted | OverRateLimit)
        after = await read_status(settings, timed, shop, *windows)
        assert after == await read_status(settings, timed, shop, *windows)
        assert after.quotas == outcome.quotas
        if isinstance(outcome, OverRateLimit):
            assert before == after


async def test_an_idle_site_has_its_whole_quota(timed: Scripts, clock: Clock, shop: str, settings: Settings) -> None:
    found = await read_status(settings, timed, shop, request_limit(5), token_limit(100))

    assert found.running == 0
    assert [(quota.remaining, quota.reset_seconds) for quota in found.quotas] == [(5, 0), (100, 0)]


async def test_requests_of_a_killed_process_count_until_their_leases_expire(
    server: Redis, clock: Clock, timed: Scripts, shop: str, settings: Settings
) -> None:
    for _ in range(2):
        await admit(server, make_request(shop, concurrency=5, lease_seconds=LEASE_SECONDS), timed)

    await clock.set(LEASE_SECONDS * SECOND - 1)
    assert (await read_status(settings, timed, shop)).running == 2
    await clock.set(LEASE_SECONDS * SECOND)
    assert (await read_status(settings, timed, shop)).running == 0


def test_without_redis_the_status_is_unavailable(timed: Scripts) -> None:
    with pytest.raises(RedisUnavailable), blocking_client("redis://127.0.0.1:1/0") as server:
        read_windows(server, "site_1", [request_limit(5)], timed)

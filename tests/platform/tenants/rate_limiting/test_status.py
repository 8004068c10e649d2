"""A look at a site's limits says what `admit` would go by, and changes nothing."""

import asyncio
import random

import pytest
from pytest_django import Settings
from redis.asyncio import Redis

from core.redis import RedisUnavailable, blocking_client
from tenants.rate_limiting.admission import admit
from tenants.rate_limiting.scripts import Scripts
from tenants.rate_limiting.status import RateLimitSnapshot, read_windows
from tenants.rate_limiting.types import Admitted, OverRateLimit
from tenants.rate_limiting.windows import SlidingWindow
from tests.platform.tenants.rate_limiting.asking import ask, requests, tokens
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock

LEASE_SECONDS = 30


async def seen(settings: Settings, timed: Scripts, site: str, *windows: SlidingWindow) -> RateLimitSnapshot:
    def read() -> RateLimitSnapshot:
        with blocking_client(settings.REDIS_URL) as server:
            return read_windows(server, site, windows, timed)

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_seen_is_what_is_left(
    server: Redis, clock: Clock, timed: Scripts, shop: str, settings: Settings, seed: int
) -> None:
    chance = random.Random(seed)
    windows = (requests(5), requests(200, 3600), tokens(500), requests(10**15, 86_400))

    now = 0
    for _ in range(40):
        now += round(chance.expovariate(0.2) * SECOND)
        await clock.set(now)
        before = await seen(settings, timed, shop, *windows)
        outcome = await admit(server, ask(shop, *windows, tokens=chance.randint(0, 200)), timed)
        assert isinstance(outcome, Admitted | OverRateLimit)
        after = await seen(settings, timed, shop, *windows)
        assert after == await seen(settings, timed, shop, *windows)
        assert after.quotas == outcome.quotas
        if isinstance(outcome, OverRateLimit):
            assert before == after


async def test_a_site_that_asked_for_nothing_has_all_of_it(
    timed: Scripts, clock: Clock, shop: str, settings: Settings
) -> None:
    found = await seen(settings, timed, shop, requests(5), tokens(100))

    assert found.running == 0
    assert [(left.remaining, left.reset_seconds) for left in found.quotas] == [(5, 0), (100, 0)]


async def test_what_a_killed_process_left_running_counts_until_its_lease_ends(
    server: Redis, clock: Clock, timed: Scripts, shop: str, settings: Settings
) -> None:
    for _ in range(2):
        await admit(server, ask(shop, concurrency=5, lease_seconds=LEASE_SECONDS), timed)

    await clock.set(LEASE_SECONDS * SECOND - 1)
    assert (await seen(settings, timed, shop)).running == 2
    await clock.set(LEASE_SECONDS * SECOND)
    assert (await seen(settings, timed, shop)).running == 0


def test_without_redis_nothing_is_seen(timed: Scripts) -> None:
    with pytest.raises(RedisUnavailable), blocking_client("redis://127.0.0.1:1/0") as server:
        read_windows(server, "site_1", [requests(5)], timed)

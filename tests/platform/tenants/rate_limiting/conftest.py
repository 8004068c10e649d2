"""A Redis client of the test's event loop, and scripts with a clock that the test sets."""

from collections.abc import AsyncIterator

import pytest
from pytest_django.fixtures import Settings
from redis.asyncio import Redis

from core import redis
from core.ids import new_uuid
from tenants.rate_limiting.scripts import Scripts, load_scripts

#: Part of the test scripts only: the production scripts read no such key.
TEST_CLOCK = "local function now_us() return tonumber(redis.call('GET', 'nd:test:clock')) end\n"
TIMED = load_scripts(TEST_CLOCK)

#: Some day in 2027, and a second, in microseconds.
BEGINNING, SECOND = 1_800_000_000_000_000, 1_000_000


class Clock:
    """Sets the time of the timed scripts, counted from `BEGINNING`."""

    def __init__(self, server: Redis) -> None:
        self._server = server

    async def set(self, microseconds: int) -> None:
        await self._server.set("nd:test:clock", BEGINNING + microseconds)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Redis]:
    yield redis.client(settings.REDIS_URL)
    await redis.close_clients()


@pytest.fixture
async def clock(server: Redis) -> Clock:
    clock = Clock(server)
    await clock.set(0)
    return clock


@pytest.fixture
def timed() -> Scripts:
    return TIMED


@pytest.fixture
def shop() -> str:
    """The id of a site that no other test uses."""
    return f"site_{new_uuid().hex}"

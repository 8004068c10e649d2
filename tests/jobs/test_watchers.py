"""Watchers of jobs in Redis."""

import asyncio
from collections.abc import Iterator

import pytest
from django.conf import settings
from redis import Redis

from core import redis
from core.ids import from_public, new_uuid, to_public
from jobs.watchers import KEY, WATCH_TTL_SECONDS, attempt_stream_id, find_watched, watch_jobs


@pytest.fixture
def server() -> Iterator[Redis]:
    with Redis.from_url(settings.REDIS_URL) as server:
        server.delete(KEY)
        yield server
        server.delete(KEY)


def test_each_attempt_has_its_own_stream_id_which_sorts_with_the_job() -> None:
    first, second = new_uuid(), new_uuid()

    streams = [attempt_stream_id(job, attempt) for job in (first, second) for attempt in (1, 2)]

    assert len(set(streams)) == 4
    assert max(streams[:2]) < min(streams[2:])
    assert from_public("stm", streams[0]).int >> 80 == first.int >> 80
    assert attempt_stream_id(first, 1) == streams[0]


def test_a_registered_watcher_expires(server: Redis) -> None:
    active, expired = new_uuid(), new_uuid()

    async def read() -> list[set[object]]:
        client = redis.client(settings.REDIS_URL)
        await watch_jobs(client, [])
        none = await find_watched(client)
        await watch_jobs(client, [active, expired])
        both = await find_watched(client)
        server.zincrby(KEY, -2 * WATCH_TTL_SECONDS, to_public("job", expired))
        one = await find_watched(client)
        await redis.close_clients()
        return [set(none), set(both), set(one)]

    none, both, one = asyncio.run(read())

    assert none == set()
    assert both == {active, expired}
    assert one == {active}
    assert 0 < server.ttl(KEY) <= 2 * WATCH_TTL_SECONDS

"""Watchers of running jobs, registered in Redis. A job without a watcher costs nothing there.

a reader registers, and renews that ──▶ the worker polls, twice a second ──▶ it writes the attempt as a stream
"""

import hashlib
from collections.abc import Iterable
from uuid import UUID

from redis.asyncio import Redis

from core.ids import InvalidId, from_public, to_public
from core.redis import LuaScript
from jobs.models import Job
from streams.entries import STREAM_ID_PREFIX

#: A sorted set of jobs; the score is when their watchers expire, by the clock of Redis, which all processes share.
KEY = "nd:jobs:watched"
#: How long a registration lasts; readers renew it well before that.
WATCH_TTL_SECONDS = 10
HASH_BITS = 62

WATCH_SCRIPT = LuaScript("""
local ends = redis.call('TIME')[1] + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1] * 2)
""")
FIND_WATCHED_SCRIPT = LuaScript("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
""")


async def watch_jobs(server: Redis, jobs: Iterable[UUID]) -> None:
    """Register a watcher of these jobs for `WATCH_TTL_SECONDS`. Raises `RedisUnavailable`."""
    if names := [to_public(Job.ID_PREFIX, job_id) for job_id in jobs]:
        await WATCH_SCRIPT.run(server, [KEY], [WATCH_TTL_SECONDS, *names])


async def find_watched(server: Redis) -> set[UUID]:
    """Return the jobs that have a watcher. Raises `RedisUnavailable`."""
    names: list[bytes] = await FIND_WATCHED_SCRIPT.run(server, [KEY], [])
    return {job_id for name in names if (job_id := _parse_name(name)) is not None}


def attempt_stream_id(job_id: UUID, attempt: int) -> str:
    """Return the id of an attempt's stream: computed, so that it need not be stored, and sorted like the job's."""
    digest = hashlib.sha256(b"%b:%d" % (job_id.bytes, attempt)).digest()
    tail = int.from_bytes(digest[:8]) & ((1 << HASH_BITS) - 1)
    return to_public(STREAM_ID_PREFIX, UUID(int=job_id.int >> HASH_BITS << HASH_BITS | tail))


def _parse_name(name: bytes) -> UUID | None:
    try:
        return from_public(Job.ID_PREFIX, name.decode(errors="replace"))
    except InvalidId:
        return None

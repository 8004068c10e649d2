"""Processes that share one Valkey: each client stands for one."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import redis.asyncio
from django.conf import settings

from streams.entries import About, End, Event
from streams.follow import Following, follow
from streams.here import here
from streams.ids import new_stream_id
from streams.live import LiveStream
from streams.log import Writer
from streams.process import ProcessMark
from streams.registry import LiveStreams

SITE = "site_bakery"
FRAMES = [("", b'{"n":%d}' % n) for n in range(40)]


def about_stream(stream_id: str = "") -> About:
    return About(
        id=stream_id or new_stream_id(),
        site=SITE,
        status=200,
        content_type="text/event-stream",
        dialect="openai",
        origin=None,
        kind="stream",
        created_at=time.time(),
    )


@dataclass(frozen=True)
class Process:
    """As much of a web process as the room needs."""

    server: redis.asyncio.Redis
    mark: ProcessMark
    streams: LiveStreams

    def writer(self, *, max_bytes: int = 1024 * 1024) -> Writer:
        return Writer(self.server, about_stream(), process=self.mark, ttl_seconds=60, max_bytes=max_bytes)

    def start(self, run: Callable[[Writer], Awaitable[None]], *, detached: bool = False) -> LiveStream:
        return self.streams.start(about_stream(), run, detached=detached)

    def follow(self, stream_id: str, after: int = 0, *, idle_seconds: float | None = None) -> Following:
        return follow(self.server, stream_id, after, site=SITE, idle_seconds=idle_seconds)

    async def read(self, stream_id: str, after: int = 0) -> list[Event]:
        """Read to the end."""
        async with self.follow(stream_id, after) as following:
            return [event async for events in following for event in events]


OpenProcess = Callable[[], Awaitable[Process]]


@pytest.fixture
async def open_process() -> AsyncIterator[OpenProcess]:
    async with AsyncExitStack() as stack:

        async def open_one() -> Process:
            server = redis.asyncio.Redis.from_url(settings.REDIS_URL, protocol=2, max_connections=64)
            stack.push_async_callback(server.aclose)
            stack.push_async_callback(here(server).close)
            mark = ProcessMark(server)
            await mark.start()
            stack.push_async_callback(mark.stop)
            streams = LiveStreams(server, mark, grace_seconds=0.1, ttl_seconds=60, max_bytes=1024 * 1024)
            stack.push_async_callback(streams.drain, 0)
            return Process(server, mark, streams)

        yield open_one


@pytest.fixture
async def serving(open_process: OpenProcess) -> Process:
    return await open_process()


@pytest.fixture
async def other(open_process: OpenProcess) -> Process:
    return await open_process()


def told(events: Iterable[Event]) -> list[tuple[str, bytes]]:
    """What a reader received, without the numbers."""
    return [(event.name, event.data) for event in events]


DONE = End("done")

"""Fixtures: several web processes over one Valkey, simulated by a client each."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from redis.asyncio import Redis

from core import redis
from streams.buffer import LocalStream
from streams.entries import LoggedEvent, StreamEnd, StreamInfo, new_stream_id
from streams.process import ProcessHeartbeat
from streams.reader import EventLogReader, follow
from streams.registry import ProcessStreams, StreamSupervisor
from streams.writer import EventLogWriter
from tests.polling import wait_until

SITE = "site_bakery"
FRAMES = [("", b'{"n":%d}' % n) for n in range(40)]


def stream_info(stream_id: str = "", *, status: int = 200) -> StreamInfo:
    return StreamInfo(
        id=stream_id or new_stream_id(),
        site=SITE,
        status=status,
        content_type="text/event-stream",
        wire_format="openai",
        origin=None,
        kind="stream",
        created_at=time.time(),
    )


@dataclass(frozen=True)
class Process:
    """The parts of a web process that streams need."""

    server: Redis
    process_streams: ProcessStreams
    heartbeat: ProcessHeartbeat
    supervisor: StreamSupervisor

    def writer(self, *, max_bytes: int = 1024 * 1024, status: int = 200) -> EventLogWriter:
        return self.process_streams.open_writer(stream_info(status=status), ttl_seconds=60, max_bytes=max_bytes)

    def start(self, run: Callable[[EventLogWriter], Awaitable[None]], *, detached: bool = False) -> LocalStream:
        return self.supervisor.start(stream_info(), run, detached=detached)

    def follow(self, stream_id: str, after: int = 0, *, idle_seconds: float | None = None) -> EventLogReader:
        return follow(self.process_streams, stream_id, after, site=SITE, idle_seconds=idle_seconds)

    async def read(self, stream_id: str, after: int = 0) -> list[LoggedEvent]:
        """Read all events to the end."""
        async with self.follow(stream_id, after) as reader:
            return [event async for events in reader for event in events]


class CuttableProxy:
    """TCP proxy between a process and Valkey whose connections can be cut."""

    def __init__(self) -> None:
        self._parts = urlsplit(settings.REDIS_URL)
        user, at, _ = self._parts.netloc.rpartition("@")
        self._user = user + at
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._port = 0

    @property
    def url(self) -> str:
        return urlunsplit(self._parts._replace(netloc=f"{self._user}127.0.0.1:{self._port}"))

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections and abort the existing ones."""
        if self._server:
            self._server.close()
        self._server = None
        await self.drop()

    def hold(self) -> None:
        """Accept new connections, but forward nothing until `release`."""
        self._may_pass.clear()

    def release(self) -> None:
        self._may_pass.set()

    async def drop(self) -> None:
        """Abort the existing connections."""
        broken = set(self._ends)
        for end in broken:
            end.transport.abort()
        await wait_until(lambda: not broken & self._ends)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._may_pass.wait()
        server_reader, server_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        ends = {writer, server_writer}
        self._ends |= ends
        try:
            with suppress(OSError):
                await asyncio.gather(_pour(reader, server_writer), _pour(server_reader, writer))
        finally:
            for end in ends:
                end.transport.abort()
            self._ends -= ends


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.transport.abort()


@pytest.fixture
async def redis_proxy() -> AsyncIterator[CuttableProxy]:
    proxy = CuttableProxy()
    await proxy.restore()
    yield proxy
    await proxy.cut()


class OpenProcess(Protocol):
    async def __call__(self, url: str = "") -> Process: ...


@pytest.fixture
async def open_process() -> AsyncIterator[OpenProcess]:
    names = (f"process-{number}" for number in count())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.close_clients)

        async def open_one(url: str = "") -> Process:
            # `redis.client` makes one client per URL, so URLs that differ in the client name give separate clients.
            server = redis.client(f"{url or settings.REDIS_URL}?client_name={next(names)}")
            streams = ProcessStreams(server)
            heartbeat = ProcessHeartbeat(streams)
            await heartbeat.start()
            stack.push_async_callback(heartbeat.stop)
            supervisor = StreamSupervisor(streams, grace_seconds=0.1, ttl_seconds=60, max_bytes=1024 * 1024)
            stack.push_async_callback(supervisor.drain, 0)
            return Process(server, streams, heartbeat, supervisor)

        yield open_one


@pytest.fixture
async def serving(open_process: OpenProcess) -> Process:
    return await open_process()


@pytest.fixture
async def other(open_process: OpenProcess) -> Process:
    return await open_process()


def without_numbers(events: Iterable[LoggedEvent]) -> list[tuple[str, bytes]]:
    """Return events as the frames they were appended as."""
    return [(event.name, event.data) for event in events]


DONE = StreamEnd("done")

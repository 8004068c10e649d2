"""What runs, over all processes, as operators see it."""

import asyncio
from collections.abc import Callable

import pytest
from django.conf import settings

from core.redis import RedisUnavailable, blocking_client
from streams.process import (
    MAX_REPORTED_STREAMS,
    PROCESSES_KEY,
    ActiveStream,
    ActiveStreams,
    build_report,
    read_active_streams,
    request_cancel_blocking,
)
from streams.writer import EventLogWriter
from tests.platform.streams.conftest import DONE, FRAMES, SITE, CuttableProxy, OpenProcess, Process
from tests.polling import wait_until

FRAMES_BYTES = sum(len(data) for _, data in FRAMES)


async def seen() -> ActiveStreams:
    def read() -> ActiveStreams:
        with blocking_client(settings.REDIS_URL) as server:
            return read_active_streams(server)

    return await asyncio.to_thread(read)


async def seen_when(holds: Callable[[ActiveStreams], object]) -> ActiveStreams:
    found = await seen()
    async with asyncio.timeout(20):
        while not holds(found):  # noqa: ASYNC110 (it is told with a beat, which says nothing here)
            await asyncio.sleep(0.05)
            found = await seen()
    return found


async def speaking(writer: EventLogWriter) -> None:
    writer.append(FRAMES)
    await asyncio.Event().wait()


async def test_what_two_processes_run_is_seen_the_oldest_first(serving: Process, other: Process) -> None:
    first = serving.start(speaking, detached=True)
    second = other.start(speaking)
    assert await other.supervisor.wait_until_visible(second)
    async with serving.follow(first.id), serving.follow(second.id), other.follow(second.id):
        found = await seen_when(lambda found: len(found.streams) == 2 and found.streams[1].stream.readers)

    assert found.count == 2
    assert [(each.stream.id, each.process) for each in found.streams] == [
        (first.id, serving.heartbeat.id),
        (second.id, other.heartbeat.id),
    ]
    mine, theirs = found.streams
    assert (mine.stream.site, mine.stream.events, mine.stream.bytes) == (SITE, len(FRAMES), FRAMES_BYTES)
    assert (mine.stream.detached, theirs.stream.detached) == (True, False)
    # One here, and one process elsewhere.
    assert (theirs.stream.readers, theirs.processes_reading) == (1, 1)


async def test_what_has_ended_is_seen_no_more(serving: Process) -> None:
    ending = asyncio.Event()

    async def until_told(writer: EventLogWriter) -> None:
        await ending.wait()
        await writer.finish(DONE)

    serving.start(until_told, detached=True)
    await seen_when(lambda found: found.count == 1)

    ending.set()

    assert (await seen_when(lambda found: not found.count)).streams == ()


async def test_what_nobody_here_could_cancel_is_not_told(serving: Process) -> None:
    """Such as a job's stream, which its worker writes: it has a page of its own."""
    job, stream = serving.writer().stream, serving.start(speaking, detached=True)

    assert [line.id for line in build_report([job, stream]).streams] == [stream.id]


async def test_a_process_that_stops_takes_its_streams_along(open_process: OpenProcess) -> None:
    process = await open_process()
    process.start(speaking, detached=True)
    await seen_when(lambda found: found.count == 1)

    await process.heartbeat.stop()

    assert await seen() == ActiveStreams((), 0)


async def test_a_process_that_dies_is_forgotten_within_seconds(open_process: OpenProcess, wire: CuttableProxy) -> None:
    process = await open_process(wire.url)
    process.start(speaking, detached=True)
    await seen_when(lambda found: found.count == 1)

    await wire.cut()

    await seen_when(lambda found: not found.count)


async def test_of_very_many_all_are_counted_and_some_are_told(serving: Process) -> None:
    streams = [serving.start(speaking, detached=True) for _ in range(MAX_REPORTED_STREAMS + 7)]

    found = await seen_when(lambda found: found.count)

    assert found.count == len(streams)
    assert [each.stream.id for each in found.streams] == [stream.id for stream in streams[:MAX_REPORTED_STREAMS]]


async def test_a_process_that_runs_nothing_writes_nothing_of_it(serving: Process, other: Process) -> None:
    serving.start(speaking, detached=True)
    await seen_when(lambda found: found.count == 1)

    members = await serving.server.zrange(PROCESSES_KEY, 0, -1)

    assert serving.heartbeat.id.encode() in members
    assert other.heartbeat.id.encode() not in members


async def test_an_operator_cancels_a_stream_where_it_runs(serving: Process) -> None:
    stream = serving.start(speaking, detached=True)
    one: ActiveStream = (await seen_when(lambda found: found.count == 1)).streams[0]

    def cancel() -> None:
        with blocking_client(settings.REDIS_URL) as server:
            request_cancel_blocking(server, one.process, one.stream.id)

    await asyncio.to_thread(cancel)

    await wait_until(lambda: stream.end)
    assert stream.cancel_reason == "requested"


def test_without_redis_nothing_is_known() -> None:
    with pytest.raises(RedisUnavailable), blocking_client("redis://127.0.0.1:1/0") as server:
        read_active_streams(server)

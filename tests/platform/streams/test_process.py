"""The report of active streams over all processes, and cancel requests of operators."""

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


async def active_streams() -> ActiveStreams:
    def read() -> ActiveStreams:
        with blocking_client(settings.REDIS_URL) as server:
            return read_active_streams(server)

    return await asyncio.to_thread(read)


async def active_streams_when(holds: Callable[[ActiveStreams], object]) -> ActiveStreams:
    active = await active_streams()
    async with asyncio.timeout(20):
        while not holds(active):  # noqa: ASYNC110 (a report comes with a heartbeat, which is no event here)
            await asyncio.sleep(0.05)
            active = await active_streams()
    return active


async def append_then_wait(writer: EventLogWriter) -> None:
    writer.append(FRAMES)
    await asyncio.Event().wait()


async def test_streams_of_two_processes_are_listed_the_oldest_first(serving: Process, other: Process) -> None:
    first = serving.start(append_then_wait, detached=True)
    second = other.start(append_then_wait)
    assert await other.supervisor.wait_until_visible(second)
    async with serving.follow(first.id), serving.follow(second.id), other.follow(second.id):
        active = await active_streams_when(lambda active: len(active.streams) == 2 and active.streams[1].stream.readers)

    assert active.count == 2
    assert [(each.stream.id, each.process) for each in active.streams] == [
        (first.id, serving.heartbeat.id),
        (second.id, other.heartbeat.id),
    ]
    mine, theirs = active.streams
    assert (mine.stream.site, mine.stream.events, mine.stream.bytes) == (SITE, len(FRAMES), FRAMES_BYTES)
    assert (mine.stream.detached, theirs.stream.detached) == (True, False)
    # One local reader, and one other process with readers.
    assert (theirs.stream.readers, theirs.processes_reading) == (1, 1)


async def test_an_ended_stream_is_no_longer_listed(serving: Process) -> None:
    ending = asyncio.Event()

    async def until_set(writer: EventLogWriter) -> None:
        await ending.wait()
        await writer.finish(DONE)

    serving.start(until_set, detached=True)
    await active_streams_when(lambda active: active.count == 1)

    ending.set()

    assert (await active_streams_when(lambda active: not active.count)).streams == ()


async def test_a_stream_without_a_task_in_its_process_is_not_reported(serving: Process) -> None:
    """Such as the attempt stream of a job: it cannot be canceled here, and the job has its own page."""
    job, stream = serving.writer().stream, serving.start(append_then_wait, detached=True)

    assert [line.id for line in build_report([job, stream]).streams] == [stream.id]


async def test_a_process_that_stops_removes_its_streams_from_the_list(open_process: OpenProcess) -> None:
    process = await open_process()
    process.start(append_then_wait, detached=True)
    await active_streams_when(lambda active: active.count == 1)

    await process.heartbeat.stop()

    assert await active_streams() == ActiveStreams((), 0)


async def test_streams_of_a_dead_process_disappear_within_seconds(
    open_process: OpenProcess, redis_proxy: CuttableProxy
) -> None:
    process = await open_process(redis_proxy.url)
    process.start(append_then_wait, detached=True)
    await active_streams_when(lambda active: active.count == 1)

    await redis_proxy.cut()

    await active_streams_when(lambda active: not active.count)


async def test_all_streams_are_counted_but_only_the_oldest_are_listed(serving: Process) -> None:
    streams = [serving.start(append_then_wait, detached=True) for _ in range(MAX_REPORTED_STREAMS + 7)]

    active = await active_streams_when(lambda active: active.count)

    assert active.count == len(streams)
    assert [each.stream.id for each in active.streams] == [stream.id for stream in streams[:MAX_REPORTED_STREAMS]]


async def test_a_process_without_running_streams_reports_nothing(serving: Process, other: Process) -> None:
    serving.start(append_then_wait, detached=True)
    await active_streams_when(lambda active: active.count == 1)

    members = await serving.server.zrange(PROCESSES_KEY, 0, -1)

    assert serving.heartbeat.id.encode() in members
    assert other.heartbeat.id.encode() not in members


async def test_an_operator_cancels_a_stream_of_another_process(serving: Process) -> None:
    stream = serving.start(append_then_wait, detached=True)
    one: ActiveStream = (await active_streams_when(lambda active: active.count == 1)).streams[0]

    def cancel() -> None:
        with blocking_client(settings.REDIS_URL) as server:
            request_cancel_blocking(server, one.process, one.stream.id)

    await asyncio.to_thread(cancel)

    await wait_until(lambda: stream.end)
    assert stream.cancel_reason == "requested"


def test_reading_active_streams_without_redis_raises() -> None:
    with pytest.raises(RedisUnavailable), blocking_client("redis://127.0.0.1:1/0") as server:
        read_active_streams(server)

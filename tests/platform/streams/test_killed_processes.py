"""Streams between real processes: one serves and is killed, others read."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from django.conf import settings

from nightdesk import env
from streams.entries import LoggedEvent, StreamEnd, new_stream_id
from streams.errors import CursorAhead, StreamOrphaned
from streams.reader import EventLogReader
from tests.platform.streams.conftest import OpenProcess, Process, without_numbers
from tests.platform.streams.serving_process import frame

ROOT = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def serving_process(stream_id: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "tests.platform.streams.serving_process", settings.REDIS_URL, stream_id]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        cwd=ROOT,
        env=env.child_environment({"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}),
    )
    try:
        assert process.stdout
        assert await process.stdout.readline() == b"serving\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_stream_of_another_process_can_be_read_from_every_event(other: Process) -> None:
    stream_id = new_stream_id()
    async with serving_process(stream_id) as process:
        running = [asyncio.create_task(_read_from(other, stream_id, after)) for after in range(0, 30, 3)]
        await asyncio.wait(running, timeout=0.3)
        await process.communicate(b"stop\n")
        read = await asyncio.gather(*running)

    all_events = read[0]
    assert without_numbers(all_events) == [frame(number) for number in range(1, len(all_events) + 1)]
    assert len(all_events) > 30
    assert read == [all_events[after:] for after in range(0, 30, 3)]
    for after in range(len(all_events)):
        assert (await other.read(stream_id, after))[0] == all_events[after]


async def _read_from(process: Process, stream_id: str, after: int) -> list[LoggedEvent]:
    async with process.follow(stream_id, after) as reader:
        events = [event async for events in reader for event in events]
        assert reader.end == StreamEnd("done")
        return events


async def test_readers_of_a_killed_process_get_stream_orphaned(open_process: OpenProcess, other: Process) -> None:
    stream_id, third = new_stream_id(), await open_process()
    async with serving_process(stream_id) as process, other.follow(stream_id) as reader:
        received = [*await anext(reader), *await anext(reader)]
        process.kill()
        await process.wait()
        killed_at = time.monotonic()

        # A client may have received events from the process that never reached the log.
        ahead = asyncio.create_task(third.read(stream_id, 100_000))
        received += await _read_until_orphaned(reader)
        seconds = time.monotonic() - killed_at
        received_late = await _read_until_orphaned(third.follow(stream_id, 3))
        with pytest.raises(StreamOrphaned):
            await ahead

    assert seconds < 6
    assert without_numbers(received) == [frame(number) for number in range(1, len(received) + 1)]
    assert received_late == received[3:]


async def _read_until_orphaned(reader: EventLogReader) -> list[LoggedEvent]:
    received: list[LoggedEvent] = []
    with suppress(StreamOrphaned):
        async for events in reader:
            received += events
    assert reader.end is None
    return received


async def test_a_cursor_ahead_of_a_live_process_is_rejected(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append([frame(1)])
    await writer.wait_until_flushed()

    with pytest.raises(CursorAhead):
        await serving.read(writer.stream.id, 2)
    with pytest.raises(CursorAhead):
        await other.read(writer.stream.id, 2)


async def test_a_cursor_slightly_ahead_of_the_log_is_waited_for(serving: Process, other: Process) -> None:
    writer = serving.writer()
    await writer.wait_until_flushed()

    opening = asyncio.create_task(other.follow(writer.stream.id, 1).open())
    await asyncio.sleep(0.1)
    writer.append([frame(1)])

    await opening

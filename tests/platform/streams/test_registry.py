"""`StreamSupervisor` runs the streams of one process, cancels unread ones, and drains them at shutdown."""

import asyncio

import pytest

from streams.entries import StreamEnd
from streams.errors import StreamsClosed
from streams.registry import StreamSupervisor
from streams.writer import EventLogWriter
from tests.platform.streams.conftest import DONE, FRAMES, Process, stream_info, without_numbers
from tests.polling import wait_until

CANCELED = StreamEnd("canceled")


async def forever(writer: EventLogWriter) -> None:
    await asyncio.Event().wait()


async def test_a_started_stream_can_be_read_to_its_end(serving: Process) -> None:
    async def run(writer: EventLogWriter) -> None:
        for frame in FRAMES:
            writer.append([frame])
            await asyncio.sleep(0)
        await writer.finish(DONE)

    stream = serving.start(run)

    assert without_numbers(await serving.read(stream.id)) == FRAMES
    await wait_until(lambda: len(serving.supervisor) == 0)
    assert stream.cancel_reason is None


async def test_an_unread_stream_is_canceled_after_the_grace_time_unless_detached(serving: Process) -> None:
    detached, unread = serving.start(forever, detached=True), serving.start(forever)

    await wait_until(lambda: len(serving.supervisor) == 1)

    assert (unread.end, unread.cancel_reason) == (CANCELED, "unread")
    assert detached.end is None


async def test_a_reader_that_returns_within_the_grace_time_finds_the_stream_running(serving: Process) -> None:
    stream = serving.start(forever)
    first, second = serving.follow(stream.id), serving.follow(stream.id)

    await first.open()
    await first.aclose()
    await second.open()
    await asyncio.sleep(0.2)
    assert stream.end is None
    await second.aclose()

    await wait_until(lambda: stream.end)


async def test_a_reader_is_counted_once_however_it_leaves(serving: Process) -> None:
    stream = serving.start(forever)
    reader = serving.follow(stream.id)
    await reader.open()
    reading = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert stream.readers == 1
    await reader.aclose()
    await reader.aclose()

    assert stream.readers == 0


async def test_a_reader_in_another_process_keeps_a_stream_running(serving: Process, other: Process) -> None:
    stream = serving.start(forever)
    assert await serving.supervisor.wait_until_visible(stream)
    reader = other.follow(stream.id)
    await reader.open()

    await asyncio.sleep(0.8)
    assert stream.end is None
    await reader.aclose()

    await wait_until(lambda: stream.end)
    assert stream.cancel_reason == "unread"


async def test_a_writing_task_that_fails_ends_its_stream_with_error(
    serving: Process, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(writer: EventLogWriter) -> None:
        writer.append(FRAMES[:1])
        raise KeyError("broken")

    stream = serving.start(run)
    async with serving.follow(stream.id) as reader:
        assert [without_numbers(events) async for events in reader] == [FRAMES[:1]]
        assert reader.end == StreamEnd("error")
    assert "stream_failed" in caplog.text


async def test_a_writing_task_canceled_before_its_first_step_ends_its_stream(serving: Process, other: Process) -> None:
    stream = serving.start(forever)
    stream.cancel("requested")
    await wait_until(lambda: stream.end)

    assert stream.end == CANCELED
    await wait_until(lambda: len(serving.supervisor) == 0)


async def test_draining_lets_streams_end_and_cancels_the_rest(serving: Process, other: Process) -> None:
    may_end = asyncio.Event()

    async def finish_in_time(writer: EventLogWriter) -> None:
        writer.append(FRAMES[:1])
        await may_end.wait()
        await writer.finish(DONE)

    async def wait_for_cancel(writer: EventLogWriter) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            writer.append([("error", (writer.stream.cancel_reason or "").encode())])
            await writer.finish(StreamEnd("error"))

    ending, cut = serving.start(finish_in_time, detached=True), serving.start(wait_for_cancel, detached=True)
    draining = asyncio.create_task(serving.supervisor.drain(0.2))
    await asyncio.sleep(0)
    with pytest.raises(StreamsClosed):
        serving.start(forever)
    may_end.set()
    await draining

    assert (ending.end, cut.end) == (DONE, StreamEnd("error"))
    assert without_numbers(await other.read(ending.id)) == FRAMES[:1]
    assert without_numbers(await other.read(cut.id)) == [("error", b"shutdown")]


async def test_readers_at_different_speeds_read_the_same_events(serving: Process) -> None:
    streams = StreamSupervisor(serving.process_streams, grace_seconds=5, ttl_seconds=60, max_bytes=1024 * 1024)

    async def run(writer: EventLogWriter) -> None:
        for frame in FRAMES:
            writer.append([frame])
            await asyncio.sleep(0.001)
        await writer.finish(DONE)

    async def read_slowly(stream_id: str, every: float) -> list[tuple[str, bytes]]:
        received = []
        async with serving.follow(stream_id) as reader:
            async for events in reader:
                received += without_numbers(events)
                await asyncio.sleep(every)
        return received

    stream = streams.start(stream_info(), run)
    read = await asyncio.gather(*(read_slowly(stream.id, every) for every in (0, 0.002, 0.05)))

    assert read == [FRAMES] * 3

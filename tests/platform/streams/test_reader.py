"""The read path: in the serving process and in another one."""

import asyncio

import pytest

from streams.entries import StreamEnd, new_stream_id
from streams.errors import CursorAhead, StreamUnknown
from streams.reader import find_record, follow, request_cancel
from streams.writer import EventLogWriter
from tests.platform.streams.conftest import DONE, FRAMES, SITE, Process, without_numbers


async def test_a_reader_in_the_same_process_receives_appended_events_immediately(serving: Process) -> None:
    writer = serving.writer()

    async with serving.follow(writer.stream.id) as reader:
        writer.append(FRAMES[:2])
        first = await anext(reader)
        writer.append(FRAMES[2:3])
        second = await anext(reader)

    assert [without_numbers(first), without_numbers(second)] == [FRAMES[:2], FRAMES[2:3]]
    assert [event.seq for event in first + second] == [1, 2, 3]


async def test_a_reader_in_another_process_receives_past_and_new_events(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES[:3])
    assert await writer.wait_until_flushed()

    async with other.follow(writer.stream.id) as reader:
        before = await anext(reader)
        writer.append(FRAMES[3:5])
        later = await anext(reader)
        await writer.finish(DONE)
        rest = [events async for events in reader]

    assert [without_numbers(before), without_numbers(later), rest] == [FRAMES[:3], FRAMES[3:5], []]
    assert reader.end == DONE


async def test_an_ended_stream_can_be_read_from_any_position(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES)
    await writer.finish(DONE)

    for after in range(len(FRAMES) + 1):
        assert without_numbers(await other.read(writer.stream.id, after)) == FRAMES[after:]
    with pytest.raises(CursorAhead):
        await other.read(writer.stream.id, len(FRAMES) + 1)


async def test_a_stream_without_events_has_an_end(serving: Process, other: Process) -> None:
    writer = serving.writer()
    await writer.finish(StreamEnd("error"))

    async with other.follow(writer.stream.id) as reader:
        assert [events async for events in reader] == []
        assert reader.end == StreamEnd("error")


async def test_a_stream_of_another_site_is_unknown(serving: Process, other: Process) -> None:
    writer = serving.writer()
    await writer.wait_until_flushed()

    for process in (serving, other):
        with pytest.raises(StreamUnknown):
            await find_record(process.process_streams, writer.stream.id, site="site_other")
        with pytest.raises(StreamUnknown):
            await request_cancel(process.process_streams, writer.stream.id, site="site_other")
    with pytest.raises(StreamUnknown):
        await other.read(new_stream_id())
    with pytest.raises(StreamUnknown):
        await other.read("stm_nonsense")


async def test_a_stream_that_does_not_exist_yet_is_waited_for(serving: Process, other: Process) -> None:
    writer = serving.writer()
    reader = follow(other.process_streams, writer.stream.id, 0, site=SITE, start_timeout_seconds=5)

    async with reader:
        writer.append(FRAMES[:1])
        assert without_numbers(await anext(reader)) == FRAMES[:1]


async def test_an_idle_stream_yields_an_empty_list(serving: Process, other: Process) -> None:
    writer = serving.writer()
    await writer.wait_until_flushed()

    for process in (serving, other):
        async with process.follow(writer.stream.id, idle_seconds=0.01) as reader:
            assert await anext(reader) == []


@pytest.mark.parametrize("process", ["same", "other"])
async def test_a_status_set_after_the_start_is_known_with_the_first_event(
    serving: Process, other: Process, process: str
) -> None:
    writer = serving.writer(status=0)
    await writer.wait_until_flushed()
    reading = serving if process == "same" else other

    async with reading.follow(writer.stream.id) as reader:
        assert reader.info.status == 0
        writer.describe(status=429, content_type="application/json", retry_after_seconds=7)
        writer.append(FRAMES[:1])
        await anext(reader)
        assert (reader.info.status, reader.info.content_type) == (429, "application/json")

    async with reading.follow(writer.stream.id) as reader:
        await anext(reader)
        assert reader.info.retry_after_seconds == 7


async def test_another_process_cancels_a_stream_within_a_second(serving: Process, other: Process) -> None:
    canceled = asyncio.Event()

    async def run(writer: EventLogWriter) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            writer.append([("error", b"canceled")])
            await writer.finish(StreamEnd("canceled"))
            canceled.set()

    stream = serving.start(run, detached=True)
    assert await serving.supervisor.wait_until_visible(stream)
    async with other.follow(stream.id) as reader:
        assert await request_cancel(other.process_streams, stream.id, site=SITE)
        async with asyncio.timeout(1):
            await canceled.wait()
        events = [event async for events in reader for event in events]

    assert (without_numbers(events), reader.end) == ([("error", b"canceled")], StreamEnd("canceled"))
    assert stream.cancel_reason == "requested"
    assert not await request_cancel(other.process_streams, stream.id, site=SITE)

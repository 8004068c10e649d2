"""Writing a stream: coalesced, bounded, with an expiry, and on when Redis is flushed or away."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.redis import RedisUnavailable
from core.redis_keys import heartbeat_key
from streams import writer as writer_module
from streams.entries import (
    MAX_ENTRY_BYTES,
    LogEntry,
    LoggedEvent,
    cancel_key,
    decode_record,
    encode,
    log_key,
    record_key,
)
from streams.errors import CursorExpired
from streams.reader import request_cancel
from streams.writer import APPEND_SCRIPT
from tests.platform.streams.conftest import DONE, FRAMES, SITE, CuttableProxy, OpenProcess, Process, without_numbers
from tests.polling import wait_until


async def entries_of(process: Process, stream_id: str) -> list[tuple[bytes, Any]]:
    return await process.server.xrange(log_key(stream_id))  # type: ignore[return-value]


async def test_many_appends_are_one_entry(serving: Process) -> None:
    writer = serving.writer()
    for frame in FRAMES:
        writer.append([frame])
    await writer.finish(DONE)

    assert [entry_id for entry_id, _ in await entries_of(serving, writer.stream.id)] == [b"%d-1" % len(FRAMES)]


async def test_many_streams_go_to_their_logs_in_one_trip(serving: Process) -> None:
    # The server does not know the script before its first trip.
    await serving.writer().finish(DONE)
    before = await serving.server.info("commandstats")
    # Nothing is waited for in between, or there may be time for a trip of their records alone.
    writers = [serving.writer() for _ in range(50)]
    for writer in writers:
        writer.append(FRAMES[:2])
    await asyncio.gather(*(writer.finish(DONE) for writer in writers))
    after = await serving.server.info("commandstats")

    assert _trips(after) - _trips(before) == 1


def _trips(stats: dict[str, dict[str, int]]) -> int:
    return sum(stats.get(name, {"calls": 0})["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha"))


async def test_nothing_stays_in_redis_for_ever(serving: Process, other: Process) -> None:
    running, ended = serving.writer(), serving.writer()
    running.append(FRAMES[:1])
    await running.wait_until_flushed()
    ended.append(FRAMES[:1])
    await ended.finish(DONE)
    await request_cancel(other.process_streams, running.stream.id, site=SITE)

    keys = [log_key(running.stream.id), record_key(running.stream.id), cancel_key(serving.heartbeat.id)]
    assert all([await serving.server.ttl(key) > 0 for key in [*keys, heartbeat_key(serving.heartbeat.id)]])
    # One that runs is not forgotten while it is quiet.
    assert await serving.server.ttl(keys[0]) > 60
    assert [await serving.server.ttl(key(ended.stream.id)) for key in (log_key, record_key)] == [60, 60]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(portions=st.lists(st.lists(st.integers(0, MAX_ENTRY_BYTES), min_size=1, max_size=5), min_size=1, max_size=6))
async def test_what_is_read_elsewhere_is_what_was_written_after_any_event(
    serving: Process, other: Process, portions: list[list[int]]
) -> None:
    writer = serving.writer()
    frames = [[("", b"%d" % number + b"x" * size) for number, size in enumerate(sizes)] for sizes in portions]
    for portion in frames:
        writer.append(portion)
        await writer.wait_until_flushed()
    await writer.finish(DONE)

    whole = [frame for portion in frames for frame in portion]
    for after in range(len(whole) + 1):
        assert without_numbers(await other.read(writer.stream.id, after)) == whole[after:]


async def test_the_log_is_bounded_like_the_memory(serving: Process, other: Process) -> None:
    writer = serving.writer(max_bytes=8 * 1024)
    for number in range(100):
        writer.append([("", b"%04d" % number + b"x" * 1000)])
        await writer.wait_until_flushed()
    oldest = writer.stream.first

    assert (await serving.server.memory_usage(log_key(writer.stream.id)) or 0) < 16 * 1024
    for process in (serving, other):
        async with process.follow(writer.stream.id, oldest - 1) as following:
            assert (await anext(following))[0].seq == oldest
        with pytest.raises(CursorExpired):
            await process.follow(writer.stream.id, oldest - 2).open()


async def test_an_event_longer_than_all_the_rest_is_read_everywhere(serving: Process, other: Process) -> None:
    writer = serving.writer(max_bytes=8 * 1024)
    long = ("", b"x" * 3_000_000)
    writer.append([*FRAMES[:2], long])

    async with other.follow(writer.stream.id, 2) as following:
        assert without_numbers(await anext(following)) == [long]
        writer.append(FRAMES[:1])
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in following] == [FRAMES[:1]]


async def test_a_flush_of_redis_in_the_middle_costs_readers_nothing(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES[:10])
    await writer.wait_until_flushed()

    async with other.follow(writer.stream.id) as following:
        assert without_numbers(await anext(following)) == FRAMES[:10]
        await serving.server.flushall()
        writer.append(FRAMES[10:20])
        assert await writer.wait_until_flushed()
        assert without_numbers(await anext(following)) == FRAMES[10:20]
        assert without_numbers(await _first_events(other, writer.stream.id)) == FRAMES[:20]
        await serving.server.flushall()
        await writer.finish(DONE)
        assert [events async for events in following] == []
    assert without_numbers(await other.read(writer.stream.id)) == FRAMES[:20]


async def test_a_stream_that_is_quiet_while_redis_is_flushed_is_found_again(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES[:10])
    await writer.wait_until_flushed()

    await serving.server.flushall()

    async with asyncio.timeout(2), other.follow(writer.stream.id, 4) as following:
        assert without_numbers(await anext(following)) == FRAMES[4:10]


async def test_while_redis_is_away_readers_here_go_on_and_all_others_when_it_is_back(
    open_process: OpenProcess, wire: CuttableProxy, other: Process
) -> None:
    serving = await open_process(wire.url)
    writer = serving.writer()
    writer.append(FRAMES[:5])
    await writer.wait_until_flushed()

    async with serving.follow(writer.stream.id) as following:
        await wire.cut()
        writer.append(FRAMES[5:10])
        assert without_numbers(await anext(following)) == FRAMES[:10]
        assert not await writer.wait_until_flushed()
        writer.append(FRAMES[10:])
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in following] == [FRAMES[10:]]

    await wire.mend()
    assert without_numbers(await other.read(writer.stream.id)) == FRAMES


async def test_what_was_let_go_while_redis_was_away_is_not_waited_for(
    open_process: OpenProcess, wire: CuttableProxy, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = await open_process(wire.url)
    writer = serving.writer()
    writer.append(FRAMES[:5])
    await writer.wait_until_flushed()

    monkeypatch.setattr(writer_module, "OUTAGE_RETENTION_SECONDS", 0)
    await wire.cut()
    writer.append(FRAMES[5:])
    await writer.finish(DONE)
    await wait_until(lambda: not writer.stream.held_bytes)
    await wire.mend()
    await wait_until(lambda: not serving.process_streams.flusher.unavailable)

    async with asyncio.timeout(10):
        for process, after in ((serving, 0), (other, 0), (other, 5)):
            with pytest.raises(CursorExpired):
                await process.read(writer.stream.id, after)


async def test_a_reader_whose_redis_is_away_is_told_so(
    open_process: OpenProcess, wire: CuttableProxy, serving: Process
) -> None:
    reading = await open_process(wire.url)
    writer = serving.writer()
    await writer.wait_until_flushed()

    following = reading.follow(writer.stream.id)
    await following.open()
    await wire.cut()
    with pytest.raises(RedisUnavailable):
        await anext(following)
    with pytest.raises(RedisUnavailable):
        await reading.follow(writer.stream.id).open()
    await wire.mend()
    async with reading.follow(writer.stream.id) as again:
        writer.append(FRAMES[:1])
        assert without_numbers(await anext(again)) == FRAMES[:1]


async def test_a_reader_whose_connection_breaks_misses_nothing(
    open_process: OpenProcess, wire: CuttableProxy, serving: Process
) -> None:
    reading = await open_process(wire.url)
    writer = serving.writer()
    await writer.wait_until_flushed()

    async with reading.follow(writer.stream.id, idle_seconds=0.01) as following:
        received = []
        for frame in FRAMES[:3]:
            assert await anext(following) == []
            wire.hold()
            await wire.drop()
            writer.append([frame])
            assert await writer.wait_until_flushed()
            wire.release()
            async with asyncio.timeout(2):
                while not (events := await anext(following)):
                    pass
            received += events

    assert without_numbers(received) == FRAMES[:3]


async def test_what_is_written_again_because_its_answer_was_lost_stands_there_once(serving: Process) -> None:
    key = log_key(serving.writer().stream.id)
    arguments = [encode(LogEntry(1, [LoggedEvent(1, "", b"x")], None)), b"", "1-0 1-0 60 0"]

    answers = [await APPEND_SCRIPT.run(serving.server, [key], arguments) for _ in range(2)]

    assert answers == [[b"ok"], [b"ok"]]
    assert await serving.server.xlen(key) == 1


async def test_what_the_log_refuses_is_said_and_kept_from_nobody_here(
    serving: Process, caplog: pytest.LogCaptureFixture
) -> None:
    writer = serving.writer()
    await serving.server.set(log_key(writer.stream.id), "not a log", ex=60)

    async with serving.follow(writer.stream.id) as following:
        writer.append(FRAMES)
        assert not await writer.wait_until_flushed()
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in following] == [FRAMES]
    assert "WRONGTYPE" in caplog.text


async def test_a_long_log_has_no_end_before_its_last_event(serving: Process) -> None:
    """Readers go by the record: it must not tell of an end while the events before it are on their way."""
    writer = serving.writer()
    writer.append([("", b"x" * MAX_ENTRY_BYTES)] * 3)
    writer.end(DONE)

    records = [
        decode_record(record) if record else None
        for _, record, _ in (item.arguments for item in writer.pending_writes())
    ]

    assert [record and record.end for record in records] == [None, None, DONE]
    assert [bool(record) for record in records] == [True, False, True]


async def test_nothing_can_follow_the_end_and_the_first_end_counts(serving: Process) -> None:
    writer = serving.writer()
    await writer.finish(DONE)
    writer.end(DONE)

    with pytest.raises(ValueError, match="has ended"):
        writer.append(FRAMES)
    await wait_until(lambda: writer.stream.end == DONE)


async def _first_events(process: Process, stream_id: str) -> Any:
    async with process.follow(stream_id) as following:
        return await anext(following)

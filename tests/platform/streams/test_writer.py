"""The write path: group commit, bounds and expiry of the log, flushes and outages of Redis."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

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
from streams.writer import APPEND_SCRIPT, AppendArguments
from tests.platform.streams.conftest import DONE, FRAMES, SITE, CuttableProxy, OpenProcess, Process, without_numbers
from tests.polling import wait_until


async def entries_of(process: Process, stream_id: str) -> list[tuple[bytes, Any]]:
    return await process.server.xrange(log_key(stream_id))  # type: ignore[return-value]


async def test_appends_within_one_interval_are_one_entry(serving: Process) -> None:
    writer = serving.writer()
    for frame in FRAMES:
        writer.append([frame])
    await writer.finish(DONE)

    assert [entry_id for entry_id, _ in await entries_of(serving, writer.stream.id)] == [b"%d-1" % len(FRAMES)]


async def test_many_streams_are_flushed_in_one_round_trip(serving: Process) -> None:
    # Load the script first: the first run of a script takes two commands.
    await serving.writer().finish(DONE)
    before = await serving.server.info("commandstats")
    # No await in between: otherwise the records alone might be flushed first.
    writers = [serving.writer() for _ in range(50)]
    for writer in writers:
        writer.append(FRAMES[:2])
    await asyncio.gather(*(writer.finish(DONE) for writer in writers))
    after = await serving.server.info("commandstats")

    assert _script_calls(after) - _script_calls(before) == 1


def _script_calls(stats: dict[str, dict[str, int]]) -> int:
    return sum(stats.get(name, {"calls": 0})["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha"))


async def test_every_key_in_redis_expires(serving: Process, other: Process) -> None:
    running, ended = serving.writer(), serving.writer()
    running.append(FRAMES[:1])
    await running.wait_until_flushed()
    ended.append(FRAMES[:1])
    await ended.finish(DONE)
    await request_cancel(other.process_streams, running.stream.id, site=SITE)

    keys = [log_key(running.stream.id), record_key(running.stream.id), cancel_key(serving.heartbeat.id)]
    assert all([await serving.server.ttl(key) > 0 for key in [*keys, heartbeat_key(serving.heartbeat.id)]])
    # A running stream outlives the TTL of ended ones, even while no event comes.
    assert await serving.server.ttl(keys[0]) > 60
    assert [await serving.server.ttl(key(ended.stream.id)) for key in (log_key, record_key)] == [60, 60]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(portions=st.lists(st.lists(st.integers(0, MAX_ENTRY_BYTES), min_size=1, max_size=5), min_size=1, max_size=6))
async def test_another_process_reads_exactly_what_was_written_after_any_event(
    serving: Process, other: Process, portions: list[list[int]]
) -> None:
    writer = serving.writer()
    frames = [[("", b"%d" % number + b"x" * size) for number, size in enumerate(sizes)] for sizes in portions]
    for portion in frames:
        writer.append(portion)
        await writer.wait_until_flushed()
    await writer.finish(DONE)

    written = [frame for portion in frames for frame in portion]
    for after in range(len(written) + 1):
        assert without_numbers(await other.read(writer.stream.id, after)) == written[after:]


async def test_the_log_has_the_same_bound_as_the_memory(serving: Process, other: Process) -> None:
    writer = serving.writer(max_bytes=8 * 1024)
    for number in range(100):
        writer.append([("", b"%04d" % number + b"x" * 1000)])
        await writer.wait_until_flushed()
    oldest = writer.stream.first

    assert (await serving.server.memory_usage(log_key(writer.stream.id)) or 0) < 16 * 1024
    for process in (serving, other):
        async with process.follow(writer.stream.id, oldest - 1) as reader:
            assert (await anext(reader))[0].seq == oldest
        with pytest.raises(CursorExpired):
            await process.follow(writer.stream.id, oldest - 2).open()


async def test_an_event_larger_than_the_bound_is_read_in_another_process(serving: Process, other: Process) -> None:
    writer = serving.writer(max_bytes=8 * 1024)
    long = ("", b"x" * 3_000_000)
    writer.append([*FRAMES[:2], long])

    async with other.follow(writer.stream.id, 2) as reader:
        assert without_numbers(await anext(reader)) == [long]
        writer.append(FRAMES[:1])
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in reader] == [FRAMES[:1]]


async def test_a_flush_of_redis_loses_no_event_of_a_running_stream(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES[:10])
    await writer.wait_until_flushed()

    async with other.follow(writer.stream.id) as reader:
        assert without_numbers(await anext(reader)) == FRAMES[:10]
        await serving.server.flushall()
        writer.append(FRAMES[10:20])
        assert await writer.wait_until_flushed()
        assert without_numbers(await anext(reader)) == FRAMES[10:20]
        assert without_numbers(await _first_events(other, writer.stream.id)) == FRAMES[:20]
        await serving.server.flushall()
        await writer.finish(DONE)
        assert [events async for events in reader] == []
    assert without_numbers(await other.read(writer.stream.id)) == FRAMES[:20]


async def test_an_idle_stream_is_written_again_after_a_flush_of_redis(serving: Process, other: Process) -> None:
    writer = serving.writer()
    writer.append(FRAMES[:10])
    await writer.wait_until_flushed()

    await serving.server.flushall()

    async with asyncio.timeout(2), other.follow(writer.stream.id, 4) as reader:
        assert without_numbers(await anext(reader)) == FRAMES[4:10]


async def test_during_an_outage_local_readers_continue_and_remote_readers_catch_up_after_it(
    open_process: OpenProcess, redis_proxy: CuttableProxy, other: Process
) -> None:
    serving = await open_process(redis_proxy.url)
    writer = serving.writer()
    writer.append(FRAMES[:5])
    await writer.wait_until_flushed()

    async with serving.follow(writer.stream.id) as reader:
        await redis_proxy.cut()
        writer.append(FRAMES[5:10])
        assert without_numbers(await anext(reader)) == FRAMES[:10]
        assert not await writer.wait_until_flushed()
        writer.append(FRAMES[10:])
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in reader] == [FRAMES[10:]]

    await redis_proxy.restore()
    assert without_numbers(await other.read(writer.stream.id)) == FRAMES


async def test_events_released_during_an_outage_expire_for_all_readers(
    open_process: OpenProcess, redis_proxy: CuttableProxy, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = await open_process(redis_proxy.url)
    writer = serving.writer()
    writer.append(FRAMES[:5])
    await writer.wait_until_flushed()

    monkeypatch.setattr(writer_module, "OUTAGE_RETENTION_SECONDS", 0)
    await redis_proxy.cut()
    writer.append(FRAMES[5:])
    await writer.finish(DONE)
    await wait_until(lambda: not writer.stream.held_bytes)
    await redis_proxy.restore()
    await wait_until(lambda: not serving.process_streams.flusher.unavailable)

    async with asyncio.timeout(10):
        for process, after in ((serving, 0), (other, 0), (other, 5)):
            with pytest.raises(CursorExpired):
                await process.read(writer.stream.id, after)


async def test_a_reader_without_redis_gets_an_error_and_can_retry(
    open_process: OpenProcess, redis_proxy: CuttableProxy, serving: Process
) -> None:
    reading = await open_process(redis_proxy.url)
    writer = serving.writer()
    await writer.wait_until_flushed()

    reader = reading.follow(writer.stream.id)
    await reader.open()
    await redis_proxy.cut()
    with pytest.raises(RedisUnavailable):
        await anext(reader)
    with pytest.raises(RedisUnavailable):
        await reading.follow(writer.stream.id).open()
    await redis_proxy.restore()
    async with reading.follow(writer.stream.id) as retried:
        writer.append(FRAMES[:1])
        assert without_numbers(await anext(retried)) == FRAMES[:1]


async def test_a_reader_whose_connection_breaks_misses_no_event(
    open_process: OpenProcess, redis_proxy: CuttableProxy, serving: Process
) -> None:
    reading = await open_process(redis_proxy.url)
    writer = serving.writer()
    await writer.wait_until_flushed()

    async with reading.follow(writer.stream.id, idle_seconds=0.01) as reader:
        received = []
        for frame in FRAMES[:3]:
            assert await anext(reader) == []
            redis_proxy.hold()
            await redis_proxy.drop()
            writer.append([frame])
            assert await writer.wait_until_flushed()
            redis_proxy.release()
            async with asyncio.timeout(2):
                while not (events := await anext(reader)):
                    pass
            received += events

    assert without_numbers(received) == FRAMES[:3]


async def test_an_entry_written_again_after_a_lost_reply_is_stored_once(serving: Process) -> None:
    key = log_key(serving.writer().stream.id)
    arguments = AppendArguments(
        entry=encode(LogEntry(1, [LoggedEvent(1, "", b"x")], None)),
        record=b"",
        entry_id="1-0",
        oldest_id="1-0",
        ttl_seconds=60,
        must_exist=0,
    )

    results = [await APPEND_SCRIPT.run(serving.server, [key], astuple(arguments)) for _ in range(2)]

    assert results == [[b"ok"], [b"ok"]]
    assert await serving.server.xlen(key) == 1


async def test_a_rejected_write_is_logged_and_local_readers_miss_no_event(
    serving: Process, caplog: pytest.LogCaptureFixture
) -> None:
    writer = serving.writer()
    await serving.server.set(log_key(writer.stream.id), "not a log", ex=60)

    async with serving.follow(writer.stream.id) as reader:
        writer.append(FRAMES)
        assert not await writer.wait_until_flushed()
        await writer.finish(DONE)
        assert [without_numbers(events) async for events in reader] == [FRAMES]
    assert "WRONGTYPE" in caplog.text


async def test_the_record_has_no_end_before_the_log_has_the_last_event(serving: Process) -> None:
    """Readers trust an end in the record, so it must not be written while earlier events are not."""
    writer = serving.writer()
    writer.append([("", b"x" * MAX_ENTRY_BYTES)] * 3)
    writer.end(DONE)

    records = [
        decode_record(record) if record else None
        for record in (item.arguments.record for item in writer.pending_writes())
    ]

    assert [record and record.end for record in records] == [None, None, DONE]
    assert [bool(record) for record in records] == [True, False, True]


async def test_no_event_can_follow_the_end_and_the_first_end_counts(serving: Process) -> None:
    writer = serving.writer()
    await writer.finish(DONE)
    writer.end(DONE)

    with pytest.raises(ValueError, match="has ended"):
        writer.append(FRAMES)
    await wait_until(lambda: writer.stream.end == DONE)


async def _first_events(process: Process, stream_id: str) -> Any:
    async with process.follow(stream_id) as reader:
        return await anext(reader)

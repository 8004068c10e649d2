"""Streams of other processes: one connection for all of them."""

import asyncio

from streams.entries import LogEntry, LoggedEvent
from streams.subscriptions import StreamSubscription, StreamSubscriptions
from tests.platform.streams.conftest import DONE, FRAMES, Process, without_numbers


def entry(first: int, last: int) -> LogEntry:
    return LogEntry(last, [LoggedEvent(seq, "", b"%d" % seq) for seq in range(first, last + 1)], None)


async def test_thousands_of_readers_share_one_connection(serving: Process, other: Process) -> None:
    writers = [serving.writer() for _ in range(100)]
    await asyncio.gather(*(writer.wait_until_flushed() for writer in writers))
    followings = [other.follow(writer.stream.id) for writer in writers for _ in range(20)]
    await asyncio.gather(*(following.open() for following in followings))
    reading = [asyncio.create_task(anext(following)) for following in followings]

    for writer in writers:
        writer.append(FRAMES[:1])
    read = await asyncio.gather(*reading)

    assert {str(without_numbers(events)) for events in read} == {str(FRAMES[:1])}
    assert await _connections_of(other) < 12
    for writer in writers:
        writer.end(DONE)
    for following in followings:
        await following.aclose()


async def _connections_of(process: Process) -> int:
    name = process.server.connection_pool.connection_kwargs["client_name"]
    return sum(each["name"] == name for each in await process.server.client_list())


def test_what_is_told_twice_is_held_once() -> None:
    tail = StreamSubscription("stm_x", "process_x")

    for told_entry in (entry(5, 7), entry(5, 9), entry(8, 9), entry(10, 10)):
        tail.on_entry(told_entry)

    assert [event.seq for event in tail.events] == list(range(5, 11))
    assert [tail.holds_after(seq) for seq in (3, 4, 10, 11)] == [False, True, True, False]


def test_what_was_told_before_a_gap_is_let_go() -> None:
    tail = StreamSubscription("stm_x", "process_x")

    tail.on_entry(entry(1, 3))
    tail.on_entry(entry(6, 7))

    assert [event.seq for event in tail.events] == [6, 7]
    assert not tail.holds_after(3)


def test_before_anything_is_told_nothing_can_be_gone_on_from() -> None:
    assert not any(StreamSubscription("stm_x", "process_x").holds_after(seq) for seq in (0, 1, 5))


def test_an_end_after_a_gap_is_not_taken_for_the_next_event() -> None:
    tail = StreamSubscription("stm_x", "process_x")
    tail.on_entry(entry(1, 3))

    tail.on_entry(LogEntry(9, [], DONE))

    assert [tail.holds_after(seq) for seq in (3, 9)] == [False, True]


def test_a_process_is_gone_when_its_mark_ran_out_not_when_it_was_flushed() -> None:
    looks = StreamSubscriptions.__new__(StreamSubscriptions)
    looks._alive_until = {}

    assert looks._find_dead_processes({"p": 4000}, 100.0) == set()
    assert looks._find_dead_processes({"p": -2}, 100.5) == set()
    assert looks._find_dead_processes({"p": 3900}, 101.0) == set()
    assert looks._find_dead_processes({"p": 400}, 104.5) == set()
    assert looks._find_dead_processes({"p": -2}, 105.0) == {"p"}
    assert looks._find_dead_processes({"q": -2}, 105.0) == set()
    assert looks._find_dead_processes({"q": -2}, 106.0) == {"q"}

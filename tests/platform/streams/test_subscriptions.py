"""Subscriptions: one connection for all streams of other processes, and no entry missed silently."""

import asyncio

from streams.entries import LogEntry, LoggedEvent
from streams.subscriptions import StreamSubscription, StreamSubscriptions
from tests.platform.streams.conftest import DONE, FRAMES, Process, without_numbers


def entry(first: int, last: int) -> LogEntry:
    return LogEntry(last, [LoggedEvent(seq, "", b"%d" % seq) for seq in range(first, last + 1)], None)


async def test_thousands_of_readers_share_one_connection(serving: Process, other: Process) -> None:
    writers = [serving.writer() for _ in range(100)]
    await asyncio.gather(*(writer.wait_until_flushed() for writer in writers))
    readers = [other.follow(writer.stream.id) for writer in writers for _ in range(20)]
    await asyncio.gather(*(reader.open() for reader in readers))
    reading = [asyncio.create_task(anext(reader)) for reader in readers]

    for writer in writers:
        writer.append(FRAMES[:1])
    read = await asyncio.gather(*reading)

    assert {str(without_numbers(events)) for events in read} == {str(FRAMES[:1])}
    assert await _connections_of(other) < 12
    for writer in writers:
        writer.end(DONE)
    for reader in readers:
        await reader.aclose()


async def _connections_of(process: Process) -> int:
    name = process.server.connection_pool.connection_kwargs["client_name"]
    return sum(each["name"] == name for each in await process.server.client_list())


def test_an_event_published_twice_is_held_once() -> None:
    subscription = StreamSubscription("stm_x", "process_x")

    for published in (entry(5, 7), entry(5, 9), entry(8, 9), entry(10, 10)):
        subscription.on_entry(published)

    assert [event.seq for event in subscription.events] == list(range(5, 11))
    assert [subscription.holds_after(seq) for seq in (3, 4, 10, 11)] == [False, True, True, False]


def test_events_before_a_gap_are_dropped() -> None:
    subscription = StreamSubscription("stm_x", "process_x")

    subscription.on_entry(entry(1, 3))
    subscription.on_entry(entry(6, 7))

    assert [event.seq for event in subscription.events] == [6, 7]
    assert not subscription.holds_after(3)


def test_a_new_subscription_holds_no_position() -> None:
    assert not any(StreamSubscription("stm_x", "process_x").holds_after(seq) for seq in (0, 1, 5))


def test_an_end_after_a_gap_does_not_hide_the_gap() -> None:
    subscription = StreamSubscription("stm_x", "process_x")
    subscription.on_entry(entry(1, 3))

    subscription.on_entry(LogEntry(9, [], DONE))

    assert [subscription.holds_after(seq) for seq in (3, 9)] == [False, True]


def test_a_process_is_dead_when_its_heartbeat_expired_not_when_it_was_flushed() -> None:
    subscriptions = StreamSubscriptions.__new__(StreamSubscriptions)
    subscriptions._alive_until = {}

    assert subscriptions._find_dead_processes({"p": 4000}, 100.0) == set()
    assert subscriptions._find_dead_processes({"p": -2}, 100.5) == set()
    assert subscriptions._find_dead_processes({"p": 3900}, 101.0) == set()
    assert subscriptions._find_dead_processes({"p": 400}, 104.5) == set()
    assert subscriptions._find_dead_processes({"p": -2}, 105.0) == {"p"}
    assert subscriptions._find_dead_processes({"q": -2}, 105.0) == set()
    assert subscriptions._find_dead_processes({"q": -2}, 106.0) == {"q"}

"""The newest events in memory."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.buffer import EVENT_OVERHEAD_BYTES, MAX_READ_EVENTS, EventBuffer
from streams.entries import StreamEnd
from streams.errors import CursorAhead, CursorExpired


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_what_is_held_is_bounded_and_the_newest_without_a_gap(sizes: list[int]) -> None:
    buffer = EventBuffer(4096)
    for seq, size in enumerate(sizes, start=1):
        buffer.append([("", b"x" * size)])

        held = buffer.events
        assert [event.seq for event in held] == list(range(buffer.first, seq + 1))
        assert buffer.held_bytes == sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in held)
        assert buffer.held_bytes <= 4096
        assert buffer.last == seq


def test_an_event_that_is_longer_than_all_that_may_be_held_is_held_alone() -> None:
    buffer = EventBuffer(1000)

    buffer.append([("", b"short"), ("", b"x" * 5000)])

    assert [event.seq for event in buffer.after(1)] == [2]
    with pytest.raises(CursorExpired):
        buffer.after(0)


def test_a_place_is_held_expired_or_ahead() -> None:
    buffer = EventBuffer(10 * (EVENT_OVERHEAD_BYTES + 1))
    for _ in range(25):
        buffer.append([("", b"x")])

    assert [buffer.holds_after(seq) for seq in (buffer.first - 2, buffer.first - 1, 25, 26)] == [
        False,
        True,
        True,
        False,
    ]
    assert buffer.after(25) == []
    with pytest.raises(CursorAhead):
        buffer.after(26)


def test_who_is_far_behind_gets_portions() -> None:
    buffer = EventBuffer(1024 * 1024)
    buffer.append([("", b"x")] * (MAX_READ_EVENTS + 1))

    assert [event.seq for event in buffer.after(0)] == list(range(1, MAX_READ_EVENTS + 1))
    assert [event.seq for event in buffer.after(MAX_READ_EVENTS)] == [MAX_READ_EVENTS + 1]


async def test_all_who_wait_are_woken_and_one_who_left_disturbs_nobody() -> None:
    buffer = EventBuffer(1024)
    waiting = [asyncio.create_task(buffer.wait_after(0)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)

    buffer.append([("", b"x")])

    assert [event.seq for task in (waiting[0], waiting[2]) for event in await task] == [1, 1]


async def test_who_waits_at_the_end_is_told_that_nothing_comes() -> None:
    buffer = EventBuffer(1024)
    waiting = asyncio.create_task(buffer.wait_after(0))
    await asyncio.sleep(0)

    buffer.finish(StreamEnd("done"))

    assert await waiting == []


async def test_who_waits_only_for_a_while_is_told_so() -> None:
    buffer = EventBuffer(1024)

    assert not await buffer.wait(0.001)
    # An idle stream must not collect those who waited for it.
    assert buffer._waiting == []

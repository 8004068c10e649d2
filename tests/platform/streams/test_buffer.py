"""`EventBuffer` holds the newest events in bounded memory, for any number of readers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.buffer import EVENT_OVERHEAD_BYTES, MAX_READ_EVENTS, EventBuffer
from streams.entries import StreamEnd
from streams.errors import CursorAhead, CursorExpired


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_a_buffer_holds_the_newest_events_without_a_gap_within_its_bound(sizes: list[int]) -> None:
    buffer = EventBuffer(4096)
    for seq, size in enumerate(sizes, start=1):
        buffer.append([("", b"x" * size)])

        held = buffer.events
        assert [event.seq for event in held] == list(range(buffer.first, seq + 1))
        assert buffer.held_bytes == sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in held)
        assert buffer.held_bytes <= 4096
        assert buffer.last == seq


def test_an_event_larger_than_the_bound_is_held_alone() -> None:
    buffer = EventBuffer(1000)

    buffer.append([("", b"short"), ("", b"x" * 5000)])

    assert [event.seq for event in buffer.after(1)] == [2]
    with pytest.raises(CursorExpired):
        buffer.after(0)


def test_a_position_is_held_expired_or_ahead() -> None:
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


def test_a_reader_that_is_far_behind_reads_in_portions() -> None:
    buffer = EventBuffer(1024 * 1024)
    buffer.append([("", b"x")] * (MAX_READ_EVENTS + 1))

    assert [event.seq for event in buffer.after(0)] == list(range(1, MAX_READ_EVENTS + 1))
    assert [event.seq for event in buffer.after(MAX_READ_EVENTS)] == [MAX_READ_EVENTS + 1]


async def test_an_append_wakes_all_waiting_readers_but_canceled_ones() -> None:
    buffer = EventBuffer(1024)
    readers = [asyncio.create_task(buffer.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    readers[1].cancel()
    await asyncio.sleep(0)

    buffer.append([("", b"x")])

    assert [await readers[0], await readers[2]] == [True, True]
    assert readers[1].cancelled()


async def test_the_end_of_a_stream_wakes_a_waiting_reader_without_events() -> None:
    buffer = EventBuffer(1024)
    waiting = asyncio.create_task(buffer.wait())
    await asyncio.sleep(0)

    buffer.finish(StreamEnd("done"))

    assert await waiting
    assert (buffer.after(0), buffer.end) == ([], StreamEnd("done"))


async def test_a_wait_returns_false_on_timeout() -> None:
    buffer = EventBuffer(1024)

    assert not await buffer.wait(0.001)
    # An idle stream must not accumulate abandoned waiters.
    assert buffer._waiting == []

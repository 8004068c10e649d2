"""What goes into the log comes out of it, wherever one begins to read, and whatever was written twice."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import to_public
from streams.entries import (
    MAX_ENTRY_BYTES,
    LogEntry,
    LoggedEvent,
    StreamEnd,
    decode_entry,
    encode,
    format_cursor,
    merge_entries,
    new_stream_id,
    parse_cursor,
    split_into_entries,
    stream_age_seconds,
)
from streams.errors import CursorError, CursorExpired, CursorForeign, CursorMalformed, StreamUnknown

#: The same in each process of the tests, for it names some of them.
STREAM = to_public("stm", UUID("019a8c5e-0000-7000-8000-000000000001"))
DONE = StreamEnd("done")
FRAMES = st.lists(st.tuples(st.sampled_from(["", "error", "delta"]), st.binary(max_size=40)), min_size=1, max_size=30)


def number(frames: list[tuple[str, bytes]]) -> list[LoggedEvent]:
    return [LoggedEvent(seq, name, data) for seq, (name, data) in enumerate(frames, start=1)]


def cut(events: list[LoggedEvent], places: list[int]) -> list[LogEntry]:
    """Write the events in portions, the end with the last."""
    bounds = sorted({min(place, len(events)) for place in places} | {0, len(events)})
    entries = [LogEntry(end, events[begin:end], None) for begin, end in zip(bounds, bounds[1:], strict=False)]
    return [*entries[:-1], LogEntry(entries[-1].last, entries[-1].events, DONE)]


@given(frames=FRAMES, places=st.lists(st.integers(1, 30), max_size=6))
def test_every_event_after_any_place_is_read_once_and_as_it_was(
    frames: list[tuple[str, bytes]], places: list[int]
) -> None:
    events = number(frames)
    log = [decode_entry(encode(entry)) for entry in cut(events, places)]

    for after in range(len(events) + 1):
        found = [entry for entry in log if entry.last > after or entry.end]
        assert merge_entries(found, after) == (events[after:], DONE)


@given(frames=FRAMES, places=st.lists(st.integers(1, 30), max_size=6), again=st.lists(st.integers(0, 29), max_size=6))
def test_what_was_written_twice_is_read_once(
    frames: list[tuple[str, bytes]], places: list[int], again: list[int]
) -> None:
    events = number(frames)
    log = [
        LogEntry(entry.last, events[min(begin, entry.last - 1) : entry.last], entry.end)
        if begin < entry.last - len(entry.events)
        else entry
        for entry, begin in zip(cut(events, places), [*again, *[30] * 40], strict=False)
    ]

    for after in range(len(events) + 1):
        assert merge_entries([entry for entry in log if entry.last > after or entry.end], after) == (
            events[after:],
            DONE,
        )


def test_where_an_event_is_missing_nobody_reads_on() -> None:
    events = number([("", b"x")] * 9)
    log = [LogEntry(3, events[:3], None), LogEntry(9, events[6:], DONE)]

    assert merge_entries(log, 1) == (events[1:3], None)
    for after in (3, 4, 5):
        with pytest.raises(CursorExpired):
            merge_entries(log[1:], after)
    assert merge_entries(log[1:], 6) == (events[6:], DONE)


def test_an_end_whose_events_are_gone_is_no_end() -> None:
    with pytest.raises(CursorExpired):
        merge_entries([LogEntry(9, [], DONE)], 8)
    assert merge_entries([LogEntry(9, [], DONE)], 9) == ([], DONE)


def test_entries_are_of_a_size_and_a_long_event_has_one_to_itself() -> None:
    sizes = [10, 20, MAX_ENTRY_BYTES * 3, 10, MAX_ENTRY_BYTES - 10, 1, 1]
    events = number([("", b"x" * size) for size in sizes])

    entries = list(split_into_entries(0, events, DONE))

    assert [entry.last for entry in entries] == [2, 3, 5, 7]
    assert [entry.end for entry in entries] == [None, None, None, DONE]
    assert [event for entry in entries for event in entry.events] == events


def test_an_end_alone_is_an_entry_and_nothing_is_none() -> None:
    assert [(entry.id, entry.events) for entry in split_into_entries(7, [], DONE)] == [("7-1", [])]
    assert list(split_into_entries(7, [], None)) == []


# Stream ids and cursors


def test_a_cursor_is_read_as_it_was_written() -> None:
    assert [parse_cursor(format_cursor(STREAM, seq), STREAM) for seq in (0, 1, 57, 10**14)] == [0, 1, 57, 10**14]


def test_a_bare_number_is_a_place_in_the_stream_that_is_asked_for() -> None:
    assert parse_cursor("57", STREAM) == 57


@pytest.mark.parametrize(
    "text",
    ["", "-", "-1", "x", f"{STREAM}", f"{STREAM}-", f"{STREAM}-x", f"{STREAM}--1", f"{STREAM}-1.5", f"{STREAM}-٣",
     f"{STREAM}-{10**15}", "stm_short-1", "job_00000000000000000000000000-1", f" {STREAM}-1"],
)  # fmt: skip
def test_what_is_no_cursor_is_said_to_be_none(text: str) -> None:
    with pytest.raises(CursorMalformed):
        parse_cursor(text, STREAM)


def test_a_cursor_of_another_stream_is_foreign() -> None:
    with pytest.raises(CursorForeign):
        parse_cursor(format_cursor(new_stream_id(), 3), STREAM)


def test_whatever_is_wrong_with_a_cursor_is_one_kind_of_error() -> None:
    assert issubclass(CursorMalformed, CursorError)
    assert not issubclass(StreamUnknown, CursorError)


def test_an_id_says_when_it_was_made() -> None:
    assert 0 <= stream_age_seconds(new_stream_id()) < 60
    with pytest.raises(StreamUnknown):
        stream_age_seconds("job_01k9x00000000000000000000a")

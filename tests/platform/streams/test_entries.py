"""Events survive the log unchanged, from any position and despite repeated writes; ids and cursors are strict."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import to_public
from providers.sse_writer import encode_frames
from streams.entries import (
    MAX_ENTRY_BYTES,
    LogEntry,
    LoggedEvent,
    StreamEnd,
    decode_entry,
    encode,
    merge_entries,
    new_stream_id,
    parse_cursor,
    split_into_entries,
    stream_age_seconds,
)
from streams.errors import CursorError, CursorExpired, CursorForeign, CursorMalformed, StreamUnknown

#: Constant, because it is part of the names of parametrized tests, which must not differ between test processes.
STREAM = to_public("stm", UUID("019a8c5e-0000-7000-8000-000000000001"))
DONE = StreamEnd("done")
FRAMES = st.lists(st.tuples(st.sampled_from(["", "error", "delta"]), st.binary(max_size=40)), min_size=1, max_size=30)


def number(frames: list[tuple[str, bytes]]) -> list[LoggedEvent]:
    return [LoggedEvent(seq, name, data) for seq, (name, data) in enumerate(frames, start=1)]


def cut(events: list[LoggedEvent], places: list[int]) -> list[LogEntry]:
    """Return the events as entries cut at `places`; the last entry has the end."""
    bounds = sorted({min(place, len(events)) for place in places} | {0, len(events)})
    entries = [LogEntry(end, events[begin:end], None) for begin, end in zip(bounds, bounds[1:], strict=False)]
    return [*entries[:-1], LogEntry(entries[-1].last, entries[-1].events, DONE)]


@given(frames=FRAMES, places=st.lists(st.integers(1, 30), max_size=6))
def test_every_event_after_any_position_is_read_once_and_unchanged(
    frames: list[tuple[str, bytes]], places: list[int]
) -> None:
    events = number(frames)
    log = [decode_entry(encode(entry)) for entry in cut(events, places)]

    for after in range(len(events) + 1):
        after_cursor = [entry for entry in log if entry.last > after or entry.end]
        assert merge_entries(after_cursor, after) == (events[after:], DONE)


@given(
    frames=FRAMES, places=st.lists(st.integers(1, 30), max_size=6), repeated=st.lists(st.integers(0, 29), max_size=6)
)
def test_overlapping_entries_are_read_once(
    frames: list[tuple[str, bytes]], places: list[int], repeated: list[int]
) -> None:
    events = number(frames)
    log = [
        LogEntry(entry.last, events[min(begin, entry.last - 1) : entry.last], entry.end)
        if begin < entry.last - len(entry.events)
        else entry
        for entry, begin in zip(cut(events, places), [*repeated, *[30] * 40], strict=False)
    ]

    for after in range(len(events) + 1):
        assert merge_entries([entry for entry in log if entry.last > after or entry.end], after) == (
            events[after:],
            DONE,
        )


def test_reading_stops_before_a_missing_event() -> None:
    events = number([("", b"x")] * 9)
    log = [LogEntry(3, events[:3], None), LogEntry(9, events[6:], DONE)]

    assert merge_entries(log, 1) == (events[1:3], None)
    for after in (3, 4, 5):
        with pytest.raises(CursorExpired):
            merge_entries(log[1:], after)
    assert merge_entries(log[1:], 6) == (events[6:], DONE)


def test_an_end_whose_events_are_missing_expires_the_cursor() -> None:
    with pytest.raises(CursorExpired):
        merge_entries([LogEntry(9, [], DONE)], 8)
    assert merge_entries([LogEntry(9, [], DONE)], 9) == ([], DONE)


def test_entries_are_bounded_and_a_long_event_has_its_own() -> None:
    sizes = [10, 20, MAX_ENTRY_BYTES * 3, 10, MAX_ENTRY_BYTES - 10, 1, 1]
    events = number([("", b"x" * size) for size in sizes])

    entries = list(split_into_entries(0, events, DONE))

    assert [entry.last for entry in entries] == [2, 3, 5, 7]
    assert [entry.end for entry in entries] == [None, None, None, DONE]
    assert [event for entry in entries for event in entry.events] == events


def test_an_end_alone_is_one_entry_and_no_event_is_none() -> None:
    assert [(entry.id, entry.events) for entry in split_into_entries(7, [], DONE)] == [("7-1", [])]
    assert list(split_into_entries(7, [], None)) == []


# Stream ids and cursors


@pytest.mark.parametrize("seq", [0, 1, 57, 10**14])
def test_the_id_of_a_server_sent_event_is_its_cursor(seq: int) -> None:
    id_line = encode_frames(STREAM, seq, [("", b"{}")]).decode().splitlines()[0]

    assert parse_cursor(id_line.removeprefix("id: "), STREAM) == seq


def test_a_bare_number_is_a_cursor_of_the_requested_stream() -> None:
    assert parse_cursor("57", STREAM) == 57


@pytest.mark.parametrize(
    "text",
    ["", "-", "-1", "x", f"{STREAM}", f"{STREAM}-", f"{STREAM}-x", f"{STREAM}--1", f"{STREAM}-1.5", f"{STREAM}-٣",
     f"{STREAM}-{10**15}", "stm_short-1", "job_00000000000000000000000000-1", f" {STREAM}-1"],
)  # fmt: skip
def test_a_malformed_cursor_is_rejected(text: str) -> None:
    with pytest.raises(CursorMalformed):
        parse_cursor(text, STREAM)


def test_a_cursor_of_another_stream_is_foreign() -> None:
    with pytest.raises(CursorForeign):
        parse_cursor(f"{new_stream_id()}-3", STREAM)


def test_cursor_errors_share_a_base_that_unknown_streams_do_not() -> None:
    assert issubclass(CursorMalformed, CursorError)
    assert not issubclass(StreamUnknown, CursorError)


def test_the_age_of_a_stream_is_known_from_its_id() -> None:
    assert 0 <= stream_age_seconds(new_stream_id()) < 60
    with pytest.raises(StreamUnknown):
        stream_age_seconds("job_01k9x00000000000000000000a")

"""Names of streams and of places in them."""

from uuid import UUID

import pytest

from core.ids import to_public
from streams.errors import CursorError, CursorForeign, CursorMalformed, StreamUnknown
from streams.ids import format_cursor, new_stream_id, parse_cursor, stream_age_seconds

#: The same in each process of the tests, for it names some of them.
STREAM = to_public("stm", UUID("019a8c5e-0000-7000-8000-000000000001"))


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

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.retry_after import parse_retry_after

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("600", 600),
        ("0", 0),
        ("1.5", 1.5),
        ("9" * 40, 1e40),
        ("Sat, 21 Nov 2026 12:02:00 GMT", 120),
        ("Sat, 21 Nov 2026 14:02:00 +0200", 120),
        ("Sat, 21 Nov 2026 12:02:00", 120),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("²", None),
        ("", None),
        (None, None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 31 Dec 9999 23:59:59 -2359", 251_607_124_739),
    ],
)
def test_retry_after_is_seconds_or_the_time_until_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == (seconds if seconds is None else pytest.approx(seconds))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{1,9} \d\d:\d\d:\d\d [+-]\d{4}"))
def test_no_value_of_retry_after_raises_or_is_negative(value: str) -> None:
    seconds = parse_retry_after(value, NOW)

    assert seconds is None or seconds >= 0

"""Durations, ages and moments as text for people."""

from datetime import UTC, datetime, timedelta

import pytest

from core.humanize import format_age, format_duration, format_estimate, format_moment

NOW = datetime(2026, 11, 21, 9, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.85, "850 ms"),
        (0.9996, "1 s"),
        (3.24, "3.2 s"),
        (5, "5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (3659, "1 h"),
        (4320, "1 h 12 min"),
        (86_400 * 4 + 3 * 3600, "4 d 3 h"),
        (86_400 * 400, "400 d"),
        (-2, "-2 s"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min"), (7199, "1 h"), (86_400 * 3, "3 d"), (-5, "0 s")],
)
def test_an_age_has_one_unit_and_is_never_negative(seconds: int, text: str) -> None:
    assert format_age(NOW - timedelta(seconds=seconds), NOW) == text


def test_a_moment_has_its_zone() -> None:
    assert format_moment(NOW) == "2026-11-21 09:04:05 UTC"


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (0, "under a minute"),
        (0.99, "under a minute"),
        (1, "about 1 min"),
        (12.4, "about 12 min"),
        (89, "about 89 min"),
        (90, "about 1.5 h"),
        (120, "about 2 h"),
        (60 * 23.7, "about 24 h"),
        (60 * 36, "about 1.5 d"),
        (60 * 24 * 12, "about 12 d"),
    ],
)
def test_an_estimate_is_rounded(minutes: float, text: str) -> None:
    assert format_estimate(timedelta(minutes=minutes)) == text

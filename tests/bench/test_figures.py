"""Figures out of calls and times."""

import pytest

from tests.bench.figures import Span, growth_per_hundred, mean_at_once, most_at_once, percentile, rate, steady_rate

OVERLAPPING = [Span(0, 4), Span(1, 2), Span(1, 3), Span(3, 4)]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]

    assert [percentile(values, share) for share in (0, 0.5, 0.95, 1)] == [1, 51, 96, 100]


def test_what_ends_as_another_begins_is_not_at_the_same_time() -> None:
    assert most_at_once(OVERLAPPING) == 3
    assert most_at_once([Span(0, 1), Span(1, 2)]) == 1


def test_the_mean_counts_from_the_first_beginning_to_the_last_end() -> None:
    assert mean_at_once(OVERLAPPING) == (4 + 1 + 2 + 1) / 4
    assert rate(OVERLAPPING) == 1


def test_the_steady_rate_leaves_out_ramp_and_tail() -> None:
    """Two at once, three seconds each; the second slot starts two seconds late."""
    waves = [Span(start + late, start + late + 3) for start in range(0, 30, 3) for late in (0, 2)]

    assert steady_rate(waves, 2) == pytest.approx(2 / 3)
    assert rate(waves) < 2 / 3


def test_memory_grows_by_the_hundred() -> None:
    assert growth_per_hundred(idle=100, loaded=130, at_once=500) == 6

"""Turns, and figures out of several measurements."""

import pytest

from tests.bench.gateways.measure import Pace, added, in_turns, mean_ratio
from tests.bench.gateways.systems import System


def system(name: str) -> System:
    return System(name, "http://127.0.0.1/v1", {}, {})


def test_systems_take_turns() -> None:
    order: list[str] = []

    def act(each: System) -> int:
        order.append(each.name)
        return len(order)

    results = in_turns([system("A"), system("B"), system("C")], 2, act)

    assert "".join(order) == "ABCABC"
    assert results == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}


def test_what_a_gateway_adds_is_a_difference_of_percentiles() -> None:
    through = [0.001 * number for number in range(100, 200)]
    direct = [0.001 * number for number in range(100)]

    compared = added(50, through, direct)

    assert (compared.rate, compared.p50_ms, compared.p99_ms) == pytest.approx((50, 100, 100))


def test_ratios_are_taken_round_by_round() -> None:
    """For a round in which the machine was busy slows both."""
    assert mean_ratio([100, 10], [10, 1]) == 10
    assert mean_ratio([100, 10], [50, 10]) == 1.5


def test_a_slow_system_is_measured_for_longer() -> None:
    pace = Pace(seconds=5, most_seconds=20, samples=400)

    assert [pace.seconds_at(rate) for rate in (1000, 40, 1)] == [5, 10, 20]

"""Which cores are used, and how much."""

import pytest

from tests.bench.gateways.cores import Cores, Ticks, TooFewCores, busy_share, choose, parse_core

STAT = (
    "cpu  9 9 9 9 9 9 9 9 9 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 100 10 50 1000 40 5 5 30 7 0\ncpu10 2 2 2 2 2 2 2 2 0 0\n"
)


def test_gateway_and_load_have_a_core_each() -> None:
    assert choose({0, 1}) == Cores(gateway=1, load=0)
    assert choose({4, 2, 7, 5}) == Cores(gateway=7, load=5)


def test_one_core_is_too_few() -> None:
    with pytest.raises(TooFewCores, match="there is 1"):
        choose({3})


def test_a_core_is_busy_but_for_idle_and_waiting_for_disks() -> None:
    assert parse_core(STAT, 1) == Ticks(busy=200, available=1240)
    assert busy_share(Ticks(200, 1240), Ticks(275, 1340)) == 0.75
    assert busy_share(Ticks(200, 1240), Ticks(200, 1240)) == 0

"""Processor time, as the kernel tells it."""

import pytest

from tests.bench.processor import TICKS, Usage, parse_machine, parse_stat, share_of_others


def test_a_process_is_read_whatever_its_name_is() -> None:
    line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 200 0 0 {} 20 0 4 0 500 1000 200"

    assert parse_stat(line.format("300 200 50 50")) == 600 / TICKS


def test_a_machine_is_busy_but_for_idle_and_waiting_for_disks() -> None:
    busy, available = parse_machine("cpu  100 10 50 1000 40 5 5 30 7 0\ncpu0 1 2 3\n")

    assert (busy * TICKS, available * TICKS) == pytest.approx((200, 1240))


def test_what_is_not_ours_is_the_others() -> None:
    before, after = Usage(busy=100, available=1000, ours=10), Usage(busy=130, available=1100, ours=30)

    assert share_of_others(before, after) == pytest.approx(0.1)
    assert share_of_others(before, Usage(busy=110, available=1100, ours=30)) == 0

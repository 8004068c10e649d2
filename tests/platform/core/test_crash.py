"""Crash points: a process kills itself at the armed point and nowhere else, and only if it is armed."""

import multiprocessing
import signal
from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured

from core import crash
from core.crash import CrashAt, CrashPoint, arm, crash_point, read_crash_at

fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    arm(None)
    yield
    arm(None)


def end_of(at: CrashAt | None, *passed: CrashPoint) -> int | None:
    """How a process ends that passes these points."""

    def live() -> None:
        arm(at)
        for point in passed:
            crash_point(point)

    process = fork.Process(target=live)
    process.start()
    process.join(10)
    return process.exitcode


@pytest.mark.parametrize("point", CrashPoint)
def test_a_process_is_killed_at_the_point_it_is_armed_for(point: CrashPoint) -> None:
    assert end_of(CrashAt(point, 1), *CrashPoint) == -signal.SIGKILL


def test_other_points_do_not_kill_the_process() -> None:
    others = [point for point in CrashPoint if point != CrashPoint.IN_CALL]

    assert end_of(CrashAt(CrashPoint.IN_CALL, 1), *others) == 0


@pytest.mark.parametrize(("passings", "end"), [(2, 0), (3, -signal.SIGKILL)])
def test_hits_of_a_point_are_counted(passings: int, end: int) -> None:
    assert end_of(CrashAt(CrashPoint.IN_SWEEP, 3), *[CrashPoint.IN_SWEEP] * passings) == end


def test_no_point_is_armed_by_default() -> None:
    assert crash._armed is None
    assert end_of(None, *CrashPoint) == 0


@pytest.mark.parametrize("point", CrashPoint)
def test_a_point_is_parsed_by_its_name(point: CrashPoint) -> None:
    assert read_crash_at(f"{point}:12") == CrashAt(point, 12)


def test_an_empty_setting_arms_no_point() -> None:
    assert read_crash_at("") is None


@pytest.mark.parametrize(
    "text", ["after_claim", "after_claim:", "after_claim:0", "after_claim:-1", "lunch:1", ":1", "1"]
)
def test_an_invalid_point_is_rejected_with_a_list_of_valid_ones(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"NIGHTDESK_CRASH_AT must be point:n.*after_claim, before_call"):
        read_crash_at(text)

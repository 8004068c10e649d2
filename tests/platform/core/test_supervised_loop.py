"""Supervised loops: no failure ends them, and an outage is logged once at its beginning and once at its end."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from core import supervised_loop
from core.supervised_loop import LoopSupervisor


class Outage(Exception): ...


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervised_loop, "time", clock)
    return clock


@pytest.fixture
def events() -> Iterator[Callable[[], list[str]]]:
    with capture_logs() as logs:
        yield lambda: [entry["event"] for entry in logs]


def supervisor(**options: Any) -> LoopSupervisor:
    return LoopSupervisor(
        unavailable_event="unavailable", recovered_event="recovered", outage_errors=(Outage,), **options
    )


async def succeed() -> str:
    return "done"


async def fail() -> str:
    raise Outage("no connection")


async def crash() -> str:
    raise ValueError("a bug")


async def test_a_step_returns_its_result_or_none_if_it_failed() -> None:
    loop = supervisor()

    assert [await loop.run(succeed), await loop.run(fail), await loop.run(crash)] == ["done", None, None]


async def test_an_outage_is_logged_once_and_its_end_once(events: Callable[[], list[str]]) -> None:
    loop = supervisor()

    for step in (succeed, fail, fail, fail, succeed, succeed, fail, succeed):
        await loop.run(step)

    assert events() == ["unavailable", "recovered", "unavailable", "recovered"]


async def test_any_other_error_is_logged_each_time_and_is_no_outage(events: Callable[[], list[str]]) -> None:
    loop = supervisor()

    for step in (crash, crash, succeed):
        await loop.run(step)

    assert events() == ["worker_step_failed", "worker_step_failed"]
    assert loop.seconds_since_failure == float("inf")


async def test_an_early_success_does_not_end_an_outage(clock: Clock, events: Callable[[], list[str]]) -> None:
    loop = supervisor(recovery_seconds=10)

    for seconds, step in ((0, fail), (1, succeed), (2, fail), (9, succeed), (9, fail), (10, succeed), (1, fail)):
        clock.now += seconds
        await loop.run(step)

    assert events() == ["unavailable", "recovered", "unavailable"]


async def test_the_pause_doubles_during_an_outage_up_to_its_maximum_and_starts_over_after_it() -> None:
    loop = supervisor(backoff_seconds=(1, 5))
    pauses = []

    for step in (succeed, fail, fail, fail, fail, succeed, fail):
        await loop.run(step)
        pauses.append(loop.pause_seconds(0.5))

    assert pauses == [0.5, 1, 2, 4, 5, 0.5, 1]


async def test_without_backoff_the_pause_stays_as_it_is() -> None:
    loop = supervisor()
    await loop.run(fail)

    assert loop.pause_seconds(0.5) == 0.5


async def test_a_loop_runs_on_after_failures() -> None:
    loop, steps, done = supervisor(), iter([fail, crash, succeed]), asyncio.Event()

    async def step() -> None:
        act = next(steps, None)
        if act is None:
            done.set()
        else:
            await act()

    running = asyncio.create_task(loop.run_forever(step, 0))

    await asyncio.wait_for(done.wait(), 5)
    running.cancel()

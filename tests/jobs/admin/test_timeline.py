"""The timeline of a job: positions of its waits, attempts and calls."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.admin.timeline import Timeline, TimelineBar, draw_timeline
from jobs.models import Attempt, Job
from jobs.read import AttemptHistory
from metering.models import UsageEvent

T = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T + timedelta(seconds=seconds)


def job(finished: float | None = None, state: str = "succeeded") -> Job:
    return Job(created_at=T, finished_at=None if finished is None else at(finished), state=state)


def attempt(number: int, begin: float, end: float | None, *calls: UsageEvent, outcome: str = "ok") -> AttemptHistory:
    ended_at = None if end is None else at(end)
    return AttemptHistory(
        Attempt(number=number, started_at=at(begin), ended_at=ended_at, outcome=outcome if end is not None else ""),
        calls,
    )


def call(number: int, begin: float, ms: int | None, outcome: str = "ok") -> UsageEvent:
    return UsageEvent(call=number, provider="sim", started_at=at(begin), duration_ms=ms, outcome=outcome)


def spans(bars: tuple[TimelineBar, ...]) -> list[tuple[float, float]]:
    return [(bar.left, bar.width) for bar in bars]


def texts(picture: Timeline) -> list[str]:
    return [mark.text for mark in picture.ticks]


def test_bars_are_placed_by_their_times() -> None:
    picture = draw_timeline(job(10), [attempt(1, 2, 4, outcome="error"), attempt(2, 5, 10, call(1, 6, 4000))], at(99))

    assert spans(tuple(lane.attempt for lane in picture.lanes)) == [(20, 20), (50, 50)]
    assert spans(picture.lanes[1].calls) == [(60, 40)]
    assert spans(picture.waits) == [(0, 20), (40, 10)]
    assert [lane.attempt.kind for lane in picture.lanes] == ["error", "ok"]
    assert picture.lanes[1].calls[0].title == "Call 1 to sim, OK: 4 s"


def test_a_running_attempt_extends_to_now() -> None:
    picture = draw_timeline(job(state="running"), [attempt(1, 5, None, call(1, 5, None, "open"))], at(10))

    lane = picture.lanes[0]
    assert spans((lane.attempt, *lane.calls)) == [(50, 50), (50, 50)]
    assert (lane.attempt.kind, lane.calls[0].kind) == ("open", "open")


def test_an_open_call_lasts_as_long_as_its_attempt() -> None:
    picture = draw_timeline(
        job(10), [attempt(1, 0, 5, call(1, 1, None, "lost"), outcome="lost"), attempt(2, 5, 10)], at(99)
    )

    assert spans(picture.lanes[0].calls) == [(10, 40)]


def test_a_job_between_attempts_has_a_wait_bar() -> None:
    picture = draw_timeline(job(state="queued"), [attempt(1, 0, 5, outcome="error")], at(10))

    assert spans(picture.waits) == [(50, 50)]


@pytest.mark.parametrize("finished", [None, 0.0])
def test_a_job_without_attempts_has_only_a_wait_bar(finished: float | None) -> None:
    picture = draw_timeline(job(finished), [], at(30))

    assert picture.lanes == ()
    assert len(picture.waits) == (1 if finished is None else 0)
    assert picture.cut == ""


def test_a_long_first_wait_is_cut_off() -> None:
    picture = draw_timeline(job(36_004), [attempt(1, 36_000, 36_004)], at(40_000))

    assert picture.lanes[0].attempt.width == 80
    assert picture.cut == "9 h 59 min"


def test_clock_differences_do_not_break_the_timeline() -> None:
    early, late = call(1, -3, 1000), call(2, 9, 60_000)

    picture = draw_timeline(job(10), [attempt(1, 0, 10, early, late)], at(5))

    assert all(
        0 <= bar.left <= 100 and bar.width >= 0 and bar.left + bar.width <= 100 for bar in picture.lanes[0].calls
    )
    assert draw_timeline(job(state="queued"), [], at(-5)).ticks[0].left == 0


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0, ["0"]),
        (0.03, ["0", "10 ms", "20 ms", "30 ms"]),
        (21, ["0", "5 s", "10 s", "15 s", "20 s"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (7 * 86_400, ["0", "2 d", "4 d", "6 d"]),
    ],
)
def test_ticks_have_round_distances(seconds: float, marks: list[str]) -> None:
    assert texts(draw_timeline(job(seconds), [], at(seconds)))[: len(marks)] == marks


@pytest.mark.parametrize("exponent", range(-3, 8))
def test_the_number_of_ticks_is_limited(exponent: int) -> None:
    for factor in (1, 2.4, 5.9, 9.99):
        assert len(texts(draw_timeline(job(factor * 10**exponent), [], T))) <= 7

"""The timeline of a job: positions of its waits, attempts and calls, in percent of the time axis. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.humanize import format_duration
from jobs.models import Job
from jobs.read import AttemptHistory
from metering.models import UsageEvent, UsageOutcome

#: Possible distances between ticks of the axis, in seconds.
TICK_STEPS_SECONDS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    21_600,
    43_200,
)
DAY = 86_400
MAX_TICKS = 6
#: If the first wait is longer than this multiple of the rest, the axis begins later, or the rest would be invisible.
LONGEST_WAIT = 2


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """A period of time: its start and length in percent, and what it is."""

    left: float
    width: float
    #: `wait`, the outcome of an attempt or call, or `open` while it lasts.
    kind: str
    text: str
    #: Tooltip.
    title: str


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """One attempt with its calls."""

    number: int
    attempt: TimelineBar
    calls: tuple[TimelineBar, ...]


@dataclass(frozen=True, slots=True)
class TimelineTick:
    left: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    waits: tuple[TimelineBar, ...]
    lanes: tuple[TimelineLane, ...]
    ticks: tuple[TimelineTick, ...]
    #: The part of the first wait before the axis begins; empty if there is none.
    cut: str


@dataclass(frozen=True, slots=True)
class TimeAxis:
    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        # Never zero, because positions are divided by it.
        return max((self.end - self.begin).total_seconds(), 0.001)

    def at(self, moment: datetime) -> float:
        """Return the position of a time in percent, clamped to the axis."""
        return min(100.0, max(0.0, (moment - self.begin).total_seconds() / self.seconds * 100))

    def bar(self, begin: datetime, end: datetime, kind: str, text: str, what: str) -> TimelineBar:
        left = self.at(begin)
        title = f"{what}: {format_duration(max(end - begin, timedelta(0)))}"
        return TimelineBar(round(left, 3), round(self.at(end) - left, 3), kind, text, title)


def draw_timeline(job: Job, attempts: Sequence[AttemptHistory], now: datetime) -> Timeline:
    """Draw the current state of a job."""
    end = max(job.finished_at or now, job.created_at)
    axis = _axis(job.created_at, attempts[0].attempt.started_at if attempts else end, end)
    return Timeline(
        waits=tuple(_waits(job, attempts, axis)),
        lanes=tuple(_lane(each, axis) for each in attempts),
        ticks=tuple(_ticks(axis)),
        cut=format_duration(axis.begin - job.created_at) if axis.begin > job.created_at else "",
    )


def _axis(created_at: datetime, first_started_at: datetime, end: datetime) -> TimeAxis:
    worked = max(end - first_started_at, timedelta(seconds=1))
    if first_started_at - created_at <= LONGEST_WAIT * worked or first_started_at >= end:
        return TimeAxis(created_at, end)
    return TimeAxis(first_started_at - worked / 4, end)


def _waits(job: Job, attempts: Sequence[AttemptHistory], axis: TimeAxis) -> Iterator[TimelineBar]:
    """Yield the waits before each attempt, and after the last one if the job has not finished."""
    begins = [job.created_at, *(each.attempt.ended_at for each in attempts)]
    ends = [*(each.attempt.started_at for each in attempts), axis.end]
    for begin, end in zip(begins, ends, strict=True):
        # Shorter gaps are not waits: the two times were written by different transactions.
        if begin is not None and end - begin > timedelta(milliseconds=1):
            yield axis.bar(begin, end, "wait", "", "Waiting")


def _lane(history: AttemptHistory, axis: TimeAxis) -> TimelineLane:
    attempt = history.attempt
    end = attempt.ended_at or axis.end
    what = f"Attempt {attempt.number}, {attempt.get_outcome_display() if attempt.outcome else 'running'}"
    bar = axis.bar(attempt.started_at, end, attempt.outcome or "open", "", what)
    return TimelineLane(attempt.number, bar, tuple(_call(call, end, axis) for call in history.calls))


def _call(call: UsageEvent, attempt_end: datetime, axis: TimeAxis) -> TimelineBar:
    # The duration of an open call is unknown; it is drawn as long as its attempt.
    end = attempt_end if call.duration_ms is None else call.started_at + timedelta(milliseconds=call.duration_ms)
    what = f"Call {call.call} to {call.provider}, {UsageOutcome(call.outcome).label}"
    return axis.bar(call.started_at, end, call.outcome, call.provider, what)


def _ticks(axis: TimeAxis) -> Iterator[TimelineTick]:
    step = _step(axis.seconds)
    # In floats 0.03 // 0.01 is 2.
    for number in range(int(axis.seconds / step + 1e-6) + 1):
        after = timedelta(seconds=number * step)
        yield TimelineTick(round(number * step / axis.seconds * 100, 3), format_duration(after) if number else "0")


def _step(seconds: float) -> float:
    """Return the smallest distance with at most MAX_TICKS ticks."""
    return next(
        (step for step in TICK_STEPS_SECONDS if seconds / step <= MAX_TICKS), DAY * (1 + seconds // (DAY * MAX_TICKS))
    )

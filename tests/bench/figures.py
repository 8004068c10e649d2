"""Figures out of what was seen: pure arithmetic over calls and times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when something went on, in Unix seconds."""

    began_at: float
    ended_at: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def most_at_once(spans: Sequence[Span]) -> int:
    """Return how many spans went on at the same moment, at most. One that ends as another begins is over by then."""
    now = most = 0
    for _, change in _changes(spans):
        now += change
        most = max(most, now)
    return most


def mean_at_once(spans: Sequence[Span]) -> float:
    """Return how many spans went on at the same time, on average from the first beginning to the last end."""
    return sum(span.ended_at - span.began_at for span in spans) / _seconds(spans)


def rate(spans: Sequence[Span]) -> float:
    """Return how many spans a second were got through, from the first beginning to the last end."""
    return len(spans) / _seconds(spans)


def steady_rate(spans: Sequence[Span], at_once: int) -> float:
    """Return how many spans a second were got through once `at_once` went on, while there was more to begin.

    Counted from the end of the first `at_once` to the end of the last but `at_once`: calls of one length come in
    waves, and so a whole number of them is counted. There must be more than twice as many spans as that.
    """
    ends = sorted(span.ended_at for span in spans)
    return (len(ends) - 2 * at_once) / (ends[-at_once - 1] - ends[at_once - 1])


def growth_per_hundred(idle: float, loaded: float, at_once: float) -> float:
    """Return what a hundred calls in flight cost, given what none and what `at_once` cost."""
    return (loaded - idle) / at_once * 100


def _seconds(spans: Sequence[Span]) -> float:
    return max(span.ended_at for span in spans) - min(span.began_at for span in spans)


def _changes(spans: Sequence[Span]) -> Iterator[tuple[float, int]]:
    # At the same moment ends sort before beginnings.
    yield from sorted([(span.began_at, 1) for span in spans] + [(span.ended_at, -1) for span in spans])

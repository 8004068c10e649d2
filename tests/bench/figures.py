"""Statistics: pure arithmetic over calls and times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A time span, in Unix seconds."""

    began_at: float
    ended_at: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def most_at_once(spans: Sequence[Span]) -> int:
    """Return the largest number of concurrent spans. A span that ends when another begins does not overlap it."""
    now = most = 0
    for _, change in _changes(spans):
        now += change
        most = max(most, now)
    return most


def mean_at_once(spans: Sequence[Span]) -> float:
    """Return the average number of concurrent spans from the first beginning to the last end."""
    return sum(span.ended_at - span.began_at for span in spans) / _seconds(spans)


def rate(spans: Sequence[Span]) -> float:
    """Return the completed spans per second, from the first beginning to the last end."""
    return len(spans) / _seconds(spans)


def steady_rate(spans: Sequence[Span], at_once: int) -> float:
    """Return the completed spans per second while `at_once` spans were running.

    Counted from the end of the first `at_once` to the end of the last but `at_once`: calls of one length come in
    waves, and so a whole number of them is counted. There must be more than twice as many spans as that.
    """
    ends = sorted(span.ended_at for span in spans)
    return (len(ends) - 2 * at_once) / (ends[-at_once - 1] - ends[at_once - 1])


def growth_per_hundred(idle: float, loaded: float, at_once: float) -> float:
    """Return the cost of a hundred calls in flight, given the cost of none and of `at_once`."""
    return (loaded - idle) / at_once * 100


def _seconds(spans: Sequence[Span]) -> float:
    return max(span.ended_at for span in spans) - min(span.began_at for span in spans)


def _changes(spans: Sequence[Span]) -> Iterator[tuple[float, int]]:
    # At the same moment ends sort before beginnings.
    yield from sorted([(span.began_at, 1) for span in spans] + [(span.ended_at, -1) for span in spans])

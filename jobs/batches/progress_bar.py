"""The progress bar of a batch: its segments, and an equivalent text."""

from dataclasses import dataclass

from jobs.batches.progress import MemberCounts


@dataclass(frozen=True, slots=True)
class BarSegment:
    """A part of the bar: its length in percent, and its meaning."""

    kind: str
    width: float


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """The progress of a batch, as segments and as an equivalent text."""

    segments: tuple[BarSegment, ...]
    text: str
    percent: int
    #: `4,000 of 5,000`
    ended: str
    #: The number of failed members; empty if there are none.
    failed: str


def draw_progress_bar(counts: MemberCounts) -> ProgressBar:
    """Draw the progress of a batch."""
    other = counts.canceled + counts.expired
    parts = (("ok", counts.succeeded), ("error", counts.failed), ("canceled", other), ("open", counts.running))
    total = max(counts.total, 1)
    # Rounded down: only a batch that has ended completely is at 100 %.
    percent = counts.ended * 100 // total
    return ProgressBar(
        segments=tuple(BarSegment(kind, round(number * 100 / total, 3)) for kind, number in parts if number),
        text=f"{counts.ended:,} of {counts.total:,} requests ended ({percent} %): {counts.succeeded:,} succeeded, "
        f"{counts.failed:,} failed, {other:,} canceled or expired; "
        f"{counts.running:,} running, {counts.queued:,} queued.",
        percent=percent,
        ended=f"{counts.ended:,} of {counts.total:,}",
        failed=f"{counts.failed:,}" if counts.failed else "",
    )

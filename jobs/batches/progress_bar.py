"""The progress bar of a batch: segments for a picture, and a text that says the same."""

from dataclasses import dataclass

from jobs.batches.progress import MemberCounts


@dataclass(frozen=True, slots=True)
class BarSegment:
    """A part of the bar: its length in percent, and what it stands for."""

    kind: str
    width: float


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """How far a batch has come: as a picture, and in words that say the same."""

    segments: tuple[BarSegment, ...]
    text: str
    percent: int
    #: `4,000 of 5,000`
    ended: str
    #: Empty where none did.
    failed: str


def draw_progress_bar(counts: MemberCounts) -> ProgressBar:
    """Draw how far a batch has come."""
    other = counts.canceled + counts.expired
    parts = (("ok", counts.succeeded), ("error", counts.failed), ("canceled", other), ("open", counts.running))
    total = max(counts.total, 1)
    # Rounded down: only what has ended altogether is at 100 %.
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

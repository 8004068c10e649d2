"""Progress of a batch, read every few seconds while its page is open; cheap however many members it has."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Count, Max
from django.urls import reverse

from core.admin_ui.model_admin import NO_VALUE
from core.humanize import format_age, format_duration, format_estimate, format_moment
from jobs.admin.presentation import (
    BATCH_COLORS,
    Badge,
    Fact,
    Visibility,
    short_number,
    short_usd,
    usd,
)
from jobs.batches.progress import BatchUsage, MemberCounts, counts_of, usage_of
from jobs.batches.progress_bar import ProgressBar, draw_progress_bar
from jobs.batches.throughput import WINDOW, BatchThroughput, estimate_time_left, estimate_total_cost, measure_throughput
from jobs.models import Batch, BatchState, Job, JobState, Pause
from jobs.pauses import describe_pause, pauses_of_batch
from jobs.worker.leases import live_workers

#: Members in these states are listed as failures. Canceled members are not.
UNSUCCESSFUL_STATES = (JobState.FAILED, JobState.EXPIRED)
MAX_CODES = 8
MAX_RECENT = 5


@dataclass(frozen=True, slots=True)
class StateCount:
    """The number of members in some states, and the URL of their list."""

    name: str
    kind: str
    number: str
    url: str | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Members that failed with the same code, with the error message of one of them."""

    code: str
    number: str
    example: str
    url: str | None


@dataclass(frozen=True, slots=True)
class RecentFailureRow:
    """A recently failed member."""

    custom_id: str
    url: str | None
    code: str
    message: str
    ago: str


@dataclass(frozen=True, slots=True)
class BatchProgressView:
    public_id: str
    #: URL of the list of its members; None if the user may not view jobs.
    members: str | None
    badges: tuple[Badge, ...]
    bar: ProgressBar | None
    state_counts: tuple[StateCount, ...]
    tiles: tuple[Fact, ...]
    #: What delays it, or will.
    notes: tuple[str, ...]
    failures: tuple[FailureRow, ...]
    recent: tuple[RecentFailureRow, ...]
    #: The progress may still change.
    is_moving: bool
    #: When it changes, the rest of the page is out of date.
    stage: str
    as_of: str


@dataclass(frozen=True, slots=True)
class BatchSnapshot:
    """What was read about a batch."""

    batch: Batch
    counts: MemberCounts
    usage: BatchUsage | None
    pauses: tuple[Pause, ...]
    throughput: BatchThroughput | None
    now: datetime

    @property
    def is_running(self) -> bool:
        """Whether its requests are being started."""
        return self.batch.state == BatchState.IN_PROGRESS and not self.pauses

    @property
    def left(self) -> timedelta | None:
        return estimate_time_left(self.counts, self.throughput) if self.throughput and self.is_running else None


def read_progress(batch: Batch, visibility: Visibility, now: datetime) -> BatchProgressView:
    """Read the progress in a fixed number of queries."""
    snapshot = _read(batch, visibility, now)
    members = members_url(batch) if visibility.jobs else None
    return BatchProgressView(
        public_id=batch.public_id,
        members=members,
        badges=tuple(_badges(snapshot)),
        bar=draw_progress_bar(snapshot.counts) if snapshot.counts.total else None,
        state_counts=tuple(_state_counts(snapshot.counts, members)),
        tiles=tuple(_tiles(snapshot)),
        notes=tuple(_notes(snapshot)),
        failures=tuple(_failures(batch, members)) if snapshot.counts.unsuccessful else (),
        recent=tuple(_recent(batch, visibility, now)) if snapshot.counts.failed else (),
        is_moving=not batch.is_terminal,
        stage="-".join((batch.state, *sorted(str(pause.pk) for pause in snapshot.pauses))),
        as_of=f"{now:%H:%M:%S} UTC",
    )


def members_url(batch: Batch, **filters: str) -> str:
    """Return the URL of the list of the batch's members."""
    return f"{reverse('admin:jobs_job_changelist')}?{urlencode({'batch': batch.public_id, **filters})}"


def _read(batch: Batch, visibility: Visibility, now: datetime) -> BatchSnapshot:
    pauses = () if batch.is_terminal else tuple(pauses_of_batch(batch).select_related("site", "batch"))
    return BatchSnapshot(
        batch=batch,
        counts=counts_of([batch])[batch.id],
        usage=usage_of([batch])[batch.id] if visibility.usage else None,
        pauses=pauses,
        throughput=measure_throughput(batch) if batch.state == BatchState.IN_PROGRESS else None,
        now=now,
    )


def _badges(snapshot: BatchSnapshot) -> Iterator[Badge]:
    state = BatchState(snapshot.batch.state)
    yield Badge(state.label, BATCH_COLORS.get(state, ""))
    if snapshot.pauses:
        yield Badge("Paused", "warning")


def _state_counts(counts: MemberCounts, members: str | None) -> Iterator[StateCount]:
    kinds = (
        ("Succeeded", "ok", counts.succeeded, (JobState.SUCCEEDED,)),
        ("Failed", "error", counts.failed, (JobState.FAILED,)),
        ("Canceled or expired", "canceled", counts.canceled + counts.expired, (JobState.CANCELED, JobState.EXPIRED)),
        ("Running", "open", counts.running, (JobState.RUNNING,)),
        ("Queued", "queued", counts.queued, (JobState.QUEUED,)),
    )
    for name, kind, number, states in kinds:
        query = urlencode([("state__exact", state) for state in states])
        yield StateCount(name, kind, f"{number:,}", f"{members}&{query}" if members and number else None)


# The tiles


def _tiles(snapshot: BatchSnapshot) -> Iterator[Fact]:
    if snapshot.batch.is_terminal:
        yield from _final_tiles(snapshot)
    else:
        yield Fact("Rate", _rate(snapshot), f"Over at most the last {format_duration(WINDOW)}")
        yield Fact("Time left", _left(snapshot), "At the current rate")
    if snapshot.usage is not None:
        yield from _usage_tiles(snapshot, snapshot.usage)


def _final_tiles(snapshot: BatchSnapshot) -> Iterator[Fact]:
    batch = snapshot.batch
    ended_at = batch_ended_at(batch)
    if ended_at is None:
        return
    took = max(ended_at - batch.created_at, timedelta(0))
    yield Fact("Took", format_duration(took), "From acceptance to the end")
    if batch.in_progress_at and snapshot.counts.succeeded:
        worked = BatchThroughput(snapshot.counts.succeeded + snapshot.counts.failed, ended_at - batch.in_progress_at)
        yield Fact("Rate", _per_minute(worked), "Average")


def _usage_tiles(snapshot: BatchSnapshot, usage: BatchUsage) -> Iterator[Fact]:
    exactly = usd(usage.cost_pico_usd) if usage.cost_pico_usd else "Billed calls"
    yield Fact("Cost" if snapshot.batch.is_terminal else "Cost so far", short_usd(usage.cost_pico_usd), exactly)
    if not snapshot.batch.is_terminal:
        total = estimate_total_cost(snapshot.counts, usage)
        shown = NO_VALUE if total is None else f"≈ {short_usd(total)}"
        yield Fact("Estimated total", shown, "If the other requests cost as much on average as those that succeeded")
    tokens = f"{short_number(usage.input_tokens)} → {short_number(usage.output_tokens)}"
    cached = f"{usage.cached_input_tokens:,} of the input came from a cache"
    yield Fact("Tokens", tokens, f"{usage.input_tokens:,} in, {usage.output_tokens:,} out; {cached}")


def _rate(snapshot: BatchSnapshot) -> str:
    return _per_minute(snapshot.throughput) if snapshot.throughput and snapshot.throughput.ended else NO_VALUE


def _per_minute(throughput: BatchThroughput) -> str:
    return (
        f"{throughput.per_minute:,.0f} / min" if throughput.per_minute >= 10 else f"{throughput.per_minute:.1f} / min"
    )


def _left(snapshot: BatchSnapshot) -> str:
    return NO_VALUE if snapshot.left is None else format_estimate(snapshot.left)


def batch_ended_at(batch: Batch) -> datetime | None:
    """Return when the batch ended; None if it has not."""
    return batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at


# Notes


def _notes(snapshot: BatchSnapshot) -> Iterator[str]:
    for pause in snapshot.pauses:
        yield describe_pause(pause, snapshot.now)
    batch, counts = snapshot.batch, snapshot.counts
    if batch.state == BatchState.CANCELLING:
        yield f"Being canceled: {counts.running:,} requests are still running; their workers are stopping them."
    elif not batch.is_terminal and not counts.running and not live_workers():
        yield "No worker is running, so no requests are started."
    if snapshot.left is not None and snapshot.now + snapshot.left > batch.expires_at:
        yield f"At this rate it will not finish before it expires at {format_moment(batch.expires_at)}."


# Failures


def _failures(batch: Batch, members: str | None) -> Iterator[FailureRow]:
    failed = Job.objects.filter(batch=batch, state__in=UNSUCCESSFUL_STATES).order_by()
    grouped = failed.values("error_code").annotate(number=Count("id"), example=Max("error_message"))
    for row in grouped.order_by("-number", "error_code")[:MAX_CODES]:
        code = row["error_code"]
        url = f"{members}&{urlencode({'error': code})}" if members and code else members
        yield FailureRow(code or "failed", f"{row['number']:,}", row["example"], url)


def _recent(batch: Batch, visibility: Visibility, now: datetime) -> Iterator[RecentFailureRow]:
    failed = Job.objects.filter(batch=batch, state=JobState.FAILED).order_by("-finished_at")
    rows = failed.only("id", "custom_id", "error_code", "error_message", "finished_at")
    for job in rows[:MAX_RECENT]:
        ago = f"{format_age(job.finished_at, now)} ago" if job.finished_at else ""
        yield RecentFailureRow(
            job.custom_id, visibility.link_to(job), job.error_code or "failed", job.error_message, ago
        )

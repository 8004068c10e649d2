"""What the admin shows of a batch while it is under way: read again every few seconds, however many members it has."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Count, Max
from django.urls import reverse

from core.display import about, age, duration, moment
from jobs.batches.pace import WINDOW, Pace, cost_in_all, pace_of, time_left
from jobs.batches.progress import Account, Counts, accounts_of, counts_of
from jobs.leases import live_workers
from jobs.models import Batch, BatchState, Job, JobState, Pause
from jobs.pauses import over_batch
from jobs.shown import BATCH_COLORS, NOTHING, Badge, Fact, Sight, about_number, about_usd, pause_text, usd

#: How members can fail. Canceled ones were asked for, and say nothing.
BAD_ENDS = (JobState.FAILED, JobState.EXPIRED)
MOST_CODES = 8
MOST_RECENT = 5


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the bar: its length in percent, and what it stands for."""

    kind: str
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """How far a batch has come: as a picture, and in words that say the same."""

    segments: tuple[Segment, ...]
    text: str
    percent: int
    #: `4,000 of 5,000`
    ended: str
    #: Empty where none did.
    failed: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Members of a kind, and where they are listed."""

    name: str
    kind: str
    number: str
    url: str | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Members that failed alike. `example` is what one of them was told."""

    code: str
    number: str
    example: str
    url: str | None


@dataclass(frozen=True, slots=True)
class RecentRow:
    """A member that failed lately."""

    custom_id: str
    url: str | None
    code: str
    message: str
    ago: str


@dataclass(frozen=True, slots=True)
class Live:
    public_id: str
    #: Where its members are listed; None for who may not see jobs.
    members: str | None
    badges: tuple[Badge, ...]
    bar: Bar | None
    tallies: tuple[Tally, ...]
    tiles: tuple[Fact, ...]
    #: What holds it back, or will.
    notes: tuple[str, ...]
    failures: tuple[FailureRow, ...]
    recent: tuple[RecentRow, ...]
    #: Something may still change by itself.
    is_moving: bool
    #: What the rest of the page shows changes with this.
    stage: str
    as_of: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that was read of a batch."""

    batch: Batch
    counts: Counts
    account: Account | None
    pauses: tuple[Pause, ...]
    pace: Pace | None
    now: datetime

    @property
    def is_running(self) -> bool:
        """It comes along, as far as anybody knows."""
        return self.batch.state == BatchState.IN_PROGRESS and not self.pauses

    @property
    def left(self) -> timedelta | None:
        return time_left(self.counts, self.pace) if self.pace and self.is_running else None


def read_live(batch: Batch, sight: Sight, now: datetime) -> Live:
    """Read how the batch stands, in a fixed number of queries."""
    found = _read(batch, sight, now)
    members = members_of(batch) if sight.jobs else None
    return Live(
        public_id=batch.public_id,
        members=members,
        badges=tuple(_badges(found)),
        bar=draw_bar(found.counts) if found.counts.total else None,
        tallies=tuple(_tallies(found.counts, members)),
        tiles=tuple(_tiles(found)),
        notes=tuple(_notes(found)),
        failures=tuple(_failures(batch, members)) if found.counts.unsuccessful else (),
        recent=tuple(_recent(batch, sight, now)) if found.counts.failed else (),
        is_moving=not batch.is_terminal,
        stage="-".join((batch.state, *sorted(str(pause.pk) for pause in found.pauses))),
        as_of=f"{now:%H:%M:%S} UTC",
    )


def draw_bar(counts: Counts) -> Bar:
    """Draw how far a batch has come."""
    other = counts.canceled + counts.expired
    parts = (("ok", counts.succeeded), ("error", counts.failed), ("canceled", other), ("open", counts.running))
    total = max(counts.total, 1)
    # Rounded down: only what has ended altogether is at 100 %.
    percent = counts.ended * 100 // total
    return Bar(
        segments=tuple(Segment(kind, round(number * 100 / total, 3)) for kind, number in parts if number),
        text=f"{counts.ended:,} of {counts.total:,} requests ended ({percent} %): {counts.succeeded:,} succeeded, "
        f"{counts.failed:,} failed, {other:,} canceled or expired; "
        f"{counts.running:,} running, {counts.queued:,} queued.",
        percent=percent,
        ended=f"{counts.ended:,} of {counts.total:,}",
        failed=f"{counts.failed:,}" if counts.failed else "",
    )


def members_of(batch: Batch, **filters: str) -> str:
    """Return the address of the list of the batch's members."""
    return f"{reverse('admin:jobs_job_changelist')}?{urlencode({'batch': batch.public_id, **filters})}"


def _read(batch: Batch, sight: Sight, now: datetime) -> Found:
    pauses = () if batch.is_terminal else tuple(over_batch(batch).select_related("site", "batch"))
    return Found(
        batch=batch,
        counts=counts_of([batch])[batch.id],
        account=accounts_of([batch])[batch.id] if sight.usage else None,
        pauses=pauses,
        pace=pace_of(batch) if batch.state == BatchState.IN_PROGRESS else None,
        now=now,
    )


def _badges(found: Found) -> Iterator[Badge]:
    state = BatchState(found.batch.state)
    yield Badge(state.label, BATCH_COLORS.get(state, ""))
    if found.pauses:
        yield Badge("Paused", "warning")


def _tallies(counts: Counts, members: str | None) -> Iterator[Tally]:
    kinds = (
        ("Succeeded", "ok", counts.succeeded, (JobState.SUCCEEDED,)),
        ("Failed", "error", counts.failed, (JobState.FAILED,)),
        ("Canceled or expired", "canceled", counts.canceled + counts.expired, (JobState.CANCELED, JobState.EXPIRED)),
        ("Running", "open", counts.running, (JobState.RUNNING,)),
        ("Queued", "queued", counts.queued, (JobState.QUEUED,)),
    )
    for name, kind, number, states in kinds:
        wanted = urlencode([("state__exact", state) for state in states])
        yield Tally(name, kind, f"{number:,}", f"{members}&{wanted}" if members and number else None)


# The tiles


def _tiles(found: Found) -> Iterator[Fact]:
    if found.batch.is_terminal:
        yield from _tiles_of_the_end(found)
    else:
        yield Fact("Rate", _rate(found), f"Over the last {duration(WINDOW)} at most")
        yield Fact("Time left", _left(found), "If the rest takes as long as the last ones took")
    if found.account is not None:
        yield from _tiles_of_the_account(found, found.account)


def _tiles_of_the_end(found: Found) -> Iterator[Fact]:
    batch = found.batch
    ended_at = ended_of(batch)
    if ended_at is None:
        return
    took = max(ended_at - batch.created_at, timedelta(0))
    yield Fact("Took", duration(took), "From being accepted to its end")
    if batch.in_progress_at and found.counts.succeeded:
        worked = Pace(found.counts.succeeded + found.counts.failed, ended_at - batch.in_progress_at)
        yield Fact("Rate", _per_minute(worked), "On the average")


def _tiles_of_the_account(found: Found, account: Account) -> Iterator[Fact]:
    exactly = f"Exactly {usd(account.cost_pico_usd)}" if account.cost_pico_usd else "Billed calls"
    yield Fact("Cost" if found.batch.is_terminal else "Cost so far", about_usd(account.cost_pico_usd), exactly)
    if not found.batch.is_terminal:
        whole = cost_in_all(found.counts, account)
        shown = NOTHING if whole is None else f"≈ {about_usd(whole)}"
        yield Fact("Cost in all", shown, "If the rest costs as much on the average as what succeeded so far")
    tokens = f"{about_number(account.input_tokens)} → {about_number(account.output_tokens)}"
    cached = f"{account.cached_input_tokens:,} of the input came from a cache"
    yield Fact("Tokens", tokens, f"{account.input_tokens:,} in, {account.output_tokens:,} out; {cached}")


def _rate(found: Found) -> str:
    return _per_minute(found.pace) if found.pace and found.pace.ended else NOTHING


def _per_minute(pace: Pace) -> str:
    return f"{pace.per_minute:,.0f} / min" if pace.per_minute >= 10 else f"{pace.per_minute:.1f} / min"


def _left(found: Found) -> str:
    return NOTHING if found.left is None else about(found.left)


def ended_of(batch: Batch) -> datetime | None:
    """Return when the batch ended; None while it is under way."""
    return batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at


# What holds it back


def _notes(found: Found) -> Iterator[str]:
    for pause in found.pauses:
        yield pause_text(pause, found.now)
    batch, counts = found.batch, found.counts
    if batch.state == BatchState.CANCELLING:
        yield f"It is being canceled: {counts.running:,} requests are in the hands of workers, who were told to stop."
    elif not batch.is_terminal and not counts.running and not live_workers():
        yield "No worker is live, so nothing is begun."
    if found.left is not None and found.now + found.left > batch.expires_at:
        yield f"At this rate it will not be done before it expires, at {moment(batch.expires_at)}."


# What failed


def _failures(batch: Batch, members: str | None) -> Iterator[FailureRow]:
    failed = Job.objects.filter(batch=batch, state__in=BAD_ENDS).order_by()
    grouped = failed.values("error_code").annotate(number=Count("id"), example=Max("error_message"))
    for row in grouped.order_by("-number", "error_code")[:MOST_CODES]:
        code = row["error_code"]
        url = f"{members}&{urlencode({'error': code})}" if members and code else members
        yield FailureRow(code or "failed", f"{row['number']:,}", row["example"], url)


def _recent(batch: Batch, sight: Sight, now: datetime) -> Iterator[RecentRow]:
    failed = Job.objects.filter(batch=batch, state=JobState.FAILED).order_by("-finished_at")
    rows = failed.only("id", "custom_id", "error_code", "error_message", "finished_at")
    for job in rows[:MOST_RECENT]:
        ago = f"{age(job.finished_at, now)} ago" if job.finished_at else ""
        yield RecentRow(job.custom_id, sight.link_to(job), job.error_code or "failed", job.error_message, ago)

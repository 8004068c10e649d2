"""Figures about the jobs of all sites, for the operators' overview. Cheap however many jobs there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Min, Q
from django.db.models.functions import TruncHour

from jobs.batches.progress import MemberCounts, counts_of
from jobs.models import TERMINAL_BATCH_STATES, Batch, Job, JobState
from jobs.pauses import paused_batch_ids
from jobs.periods import created_since

HOURS = 24
MAX_SITES = 10
MAX_BATCHES = 8

#: Terminal states that are a failure for the site; it requested cancellations itself.
UNSUCCESSFUL_STATES = (JobState.FAILED, JobState.EXPIRED)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Queued and running jobs. `due_since` is when the longest waiting queued job could have started."""

    queued: int
    running: int
    due_since: datetime | None


@dataclass(frozen=True, slots=True)
class HourlyJobs:
    """The jobs created within one hour, by their state now."""

    begins_at: datetime
    succeeded: int = 0
    #: Failed or expired.
    bad: int = 0
    #: Canceled, or not ended yet.
    other: int = 0

    @property
    def total(self) -> int:
        return self.succeeded + self.bad + self.other


@dataclass(frozen=True, slots=True)
class BusySite:
    site_id: UUID
    slug: str
    name: str
    jobs: int
    succeeded: int
    bad: int


@dataclass(frozen=True, slots=True)
class ActiveBatch:
    batch: Batch
    counts: MemberCounts
    is_on_hold: bool


def queue_status() -> QueueStatus:
    """Count queued and running jobs. Each state has a partial index, so that ended jobs are not read."""
    waiting = Job.objects.filter(state=JobState.QUEUED).aggregate(count=Count("id"), due=Min("available_at"))
    return QueueStatus(waiting["count"], Job.objects.filter(state=JobState.RUNNING).count(), waiting["due"])


def first_hour(now: datetime) -> datetime:
    """Return when the first of the last 24 hours began, the current one included."""
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)


def jobs_by_hour(now: datetime) -> list[HourlyJobs]:
    """Return the last 24 hours, oldest first, including hours without jobs."""
    begin = first_hour(now)
    grouped = created_since(Job.objects.all(), begin).annotate(hour=TruncHour("created_at")).values("hour")
    counted = grouped.order_by("hour").annotate(
        succeeded=Count("id", filter=Q(state=JobState.SUCCEEDED)),
        bad=Count("id", filter=Q(state__in=UNSUCCESSFUL_STATES)),
        total=Count("id"),
    )
    hours = {
        row["hour"]: HourlyJobs(row["hour"], row["succeeded"], row["bad"], row["total"] - row["succeeded"] - row["bad"])
        for row in counted
    }
    moments = (begin + timedelta(hours=number) for number in range(HOURS))
    return [hours.get(moment, HourlyJobs(moment)) for moment in moments]


def active_batches() -> list[ActiveBatch]:
    """Return the newest batches that have not ended, with the states of their members."""
    newest = Batch.objects.exclude(state__in=TERMINAL_BATCH_STATES).select_related("site").order_by("-id")
    batches = list(newest[:MAX_BATCHES])
    counts, waiting = counts_of(batches), paused_batch_ids(batches)
    return [ActiveBatch(batch, counts[batch.id], batch.id in waiting) for batch in batches]


def busiest_sites(since: datetime) -> Sequence[BusySite]:
    """Return the sites with the most jobs created since then."""
    grouped = created_since(Job.objects.all(), since).order_by().values("site_id", "site__slug", "site__name")
    counted = grouped.annotate(
        jobs=Count("id"),
        succeeded=Count("id", filter=Q(state=JobState.SUCCEEDED)),
        bad=Count("id", filter=Q(state__in=UNSUCCESSFUL_STATES)),
    )
    return [
        BusySite(row["site_id"], row["site__slug"], row["site__name"], row["jobs"], row["succeeded"], row["bad"])
        for row in counted.order_by("-jobs", "site__slug")[:MAX_SITES]
    ]

"""Why a queued job is not running, in words: the first reason that holds it, in the order in which claims look."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from core.display import age
from inference.models import ProviderAccount
from jobs.endings import PROVIDERS_RESTING, RETRY_BUDGET
from jobs.leases import live_workers
from jobs.models import Job, JobState
from jobs.pauses import over_job
from jobs.shown import pause_text
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class Room:
    """A cap, and how much of it is used."""

    most: int
    running: int

    @property
    def is_full(self) -> bool:
        return self.running >= self.most

    @property
    def text(self) -> str:
        return f"{self.running:,} running, {self.most:,} allowed at once"


def running_of(site: Site) -> int:
    """Return how many jobs of a site run, as its cap counts them."""
    return Job.objects.filter(state=JobState.RUNNING, site=site).count()


def why_waits(job: Job, now: datetime) -> str:
    """Say what a queued job waits for."""
    return next(_reasons(job, now))


def _reasons(job: Job, now: datetime) -> Iterator[str]:
    for pause in over_job(job).select_related("site", "batch"):
        yield f"It is held back. {pause_text(pause, now)}"
    if job.available_at > now:
        yield _not_yet(job, f"in {age(now, job.available_at)}")
    if not live_workers():
        yield "No worker is live; it waits until one starts."
    if (room := _room_of_site(job)) and room.is_full:
        yield f"The cap of its site is reached: {room.text}. It waits for one of them to end."
    if (room := _room_of_provider(job)) and room.is_full:
        yield f"The cap of {job.provider} is reached: {room.text}. It waits for one of them to end."
    yield "It waits for its turn."


def _not_yet(job: Job, when: str) -> str:
    if job.error_code == RETRY_BUDGET:
        return (
            f"Its retry was put off: too much was retried in the last minute, for its site or with its provider. "
            f"Next chance {when}."
        )
    if job.error_code == PROVIDERS_RESTING:
        return f"Every provider that serves its model is in trouble, and left alone for now. Next chance {when}."
    if job.attempt:
        return f"An attempt failed; it is tried again {when}."
    return f"It was asked to begin later: {when}."


def _room_of_site(job: Job) -> Room | None:
    most = job.site.max_running_jobs
    if most is None:
        return None
    return Room(most, running_of(job.site))


def _room_of_provider(job: Job) -> Room | None:
    most = ProviderAccount.objects.filter(name=job.provider).values_list("max_running_jobs", flat=True).first()
    if most is None:
        return None
    return Room(most, Job.objects.filter(state=JobState.RUNNING, provider=job.provider).count())

"""Why a queued job is not running, in words: the first reason that holds it, in the order in which claims look."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from core.humanize import format_age
from inference.models import ProviderAccount
from jobs.models import Job, JobState
from jobs.pauses import describe_pause, pauses_of_job
from jobs.read import count_running
from jobs.worker.leases import live_workers
from jobs.worker.outcomes import PROVIDERS_IN_COOLDOWN, RETRY_BUDGET_EXHAUSTED


@dataclass(frozen=True, slots=True)
class CapUsage:
    """A cap, and how much of it is used."""

    limit: int
    running: int

    @property
    def is_full(self) -> bool:
        return self.running >= self.limit

    @property
    def text(self) -> str:
        return f"{self.running:,} running, {self.limit:,} allowed at once"


def explain_waiting(job: Job, now: datetime) -> str:
    """Say what a queued job waits for."""
    return next(_reasons(job, now))


def _reasons(job: Job, now: datetime) -> Iterator[str]:
    for pause in pauses_of_job(job).select_related("site", "batch"):
        yield f"It is paused. {describe_pause(pause, now)}"
    if job.available_at > now:
        yield _delay_reason(job, f"in {format_age(now, job.available_at)}")
    if not live_workers():
        yield "No worker is live; it waits until one starts."
    if (cap := _site_cap(job)) and cap.is_full:
        yield f"The cap of its site is reached: {cap.text}. It waits for one of them to end."
    if (cap := _provider_cap(job)) and cap.is_full:
        yield f"The cap of {job.provider} is reached: {cap.text}. It waits for one of them to end."
    yield "It waits for its turn."


def _delay_reason(job: Job, when: str) -> str:
    if job.error_code == RETRY_BUDGET_EXHAUSTED:
        return f"Its retry was deferred: the retry budget of its site or provider is exhausted. Next try {when}."
    if job.error_code == PROVIDERS_IN_COOLDOWN:
        return f"Every provider of its model is unavailable (circuit breakers open). Next try {when}."
    if job.attempt:
        return f"An attempt failed; the next one is due {when}."
    return f"It is scheduled to start {when}."


def _site_cap(job: Job) -> CapUsage | None:
    limit = job.site.max_running_jobs
    if limit is None:
        return None
    return CapUsage(limit, count_running(job.site))


def _provider_cap(job: Job) -> CapUsage | None:
    limit = ProviderAccount.objects.filter(name=job.provider).values_list("max_running_jobs", flat=True).first()
    if limit is None:
        return None
    return CapUsage(limit, Job.objects.filter(state=JobState.RUNNING, provider=job.provider).count())

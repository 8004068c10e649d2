"""Why a queued job is not running: the first reason, in the order in which claims check them."""

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
    """A limit of concurrent jobs, and how many run."""

    limit: int
    running: int

    @property
    def is_full(self) -> bool:
        return self.running >= self.limit

    @property
    def text(self) -> str:
        return f"{self.running:,} of {self.limit:,} are running"


def explain_waiting(job: Job, now: datetime) -> str:
    """Return a sentence: what the queued job waits for."""
    return next(_reasons(job, now))


def _reasons(job: Job, now: datetime) -> Iterator[str]:
    for pause in pauses_of_job(job).select_related("site", "batch"):
        yield f"Paused. {describe_pause(pause, now)}"
    if job.available_at > now:
        yield _delay_reason(job, f"in {format_age(now, job.available_at)}")
    if not live_workers():
        yield "No worker is running. The job waits until one starts."
    if (cap := _site_cap(job)) and cap.is_full:
        yield f"Its site has reached its limit of concurrent jobs: {cap.text}. The job waits until one finishes."
    if (cap := _provider_cap(job)) and cap.is_full:
        yield f"{job.provider} has reached its limit of concurrent jobs: {cap.text}. The job waits until one finishes."
    yield "Waiting for its turn in the queue."


def _delay_reason(job: Job, when: str) -> str:
    if job.error_code == RETRY_BUDGET_EXHAUSTED:
        return f"Deferred: the retry budget of its site or provider is exhausted. Next attempt {when}."
    if job.error_code == PROVIDERS_IN_COOLDOWN:
        return f"Deferred: the circuit breakers of all providers of its model are open. Next attempt {when}."
    if job.attempt:
        return f"An attempt failed. Next attempt {when}."
    return f"Scheduled to start {when}."


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

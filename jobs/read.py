"""Reads jobs with their attempts and calls, always within one site."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import Q

from core.ids import InvalidId, from_public
from jobs.batches.read import find_batch
from jobs.errors import JobNotFound
from jobs.models import TERMINAL_STATES, Attempt, Job, JobState
from metering.models import UsageEvent
from tenants.models import Site

#: The value of `JobFilter.batch_id` for jobs that are no members of a batch.
WITHOUT_BATCH = "none"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list. A field that is None does not restrict the list."""

    state: str | None = None
    kind: str | None = None
    model: str | None = None
    idempotency_key: str | None = None
    #: The caller's: a key means the caller's own job (`Identity.idempotency_scope`).
    idempotency_scope: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    #: A batch's public id, or `WITHOUT_BATCH`.
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """One attempt and the calls it made, in order."""

    attempt: Attempt
    calls: tuple[UsageEvent, ...]


@dataclass(frozen=True, slots=True)
class JobHistory:
    """The attempts at a job, and the one call that its site is billed for, if there is one."""

    attempts: tuple[AttemptHistory, ...]
    billed: UsageEvent | None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The state of a job, and its attempt."""

    state: str
    attempt: int
    #: Of the job if it failed, otherwise of its last attempt.
    error_code: str = ""
    error_message: str = ""

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES


def progress_of(job: Job) -> JobProgress:
    return JobProgress(job.state, job.attempt, job.error_code, job.error_message)


def progress_by_id(job_ids: Sequence[UUID]) -> dict[UUID, JobProgress]:
    """Return the progress of these jobs, of any site."""
    jobs = Job.objects.filter(id__in=job_ids).only("state", "attempt", "error_code", "error_message")
    return {job.id: progress_of(job) for job in jobs}


def raw_result_of(job: Job) -> bytes | None:
    """Return the answer as it is stored, in the wire format of the job's kind; None while there is none."""
    result: bytes | None = job.result
    return result


def find_job(site: Site, public_id: str, *, lock: bool = False) -> Job:
    """Return the site's job. Raises `JobNotFound`, also for a malformed id and for another site's job."""
    try:
        job_id = from_public(Job.ID_PREFIX, public_id)
    except InvalidId:
        raise JobNotFound from None
    jobs = Job.objects.defer("payload")
    job = (jobs.select_for_update() if lock else jobs).filter(site=site, id=job_id).first()
    if job is None:
        raise JobNotFound
    return job


def count_running(site: Site) -> int:
    """Return how many jobs of a site are running, counted as its cap counts them."""
    return Job.objects.filter(state=JobState.RUNNING, site=site).count()


def list_jobs(site: Site, job_filter: JobFilter, *, after: str | None, limit: int) -> list[Job]:
    """Return the site's jobs, newest first, only those older than `after` (a public id).

    Raises:
        JobNotFound: `after` is no job of this site.
        BatchNotFound: the filter names a batch that the site does not have.
    """
    jobs = Job.objects.filter(_of_batch(site, job_filter.batch_id), site=site, **_to_lookups(job_filter))
    if after is not None:
        # Ids are ordered by time (UUIDv7), so the id itself is the cursor.
        jobs = jobs.filter(id__lt=find_job(site, after).id)
    # Lists do not show the encrypted columns, so they are not read.
    return list(jobs.select_related("retry_of").defer("payload", "result").order_by("-id")[:limit])


def history_of(job: Job) -> JobHistory:
    """Return the attempts at a job with their calls."""
    calls: dict[int | None, list[UsageEvent]] = defaultdict(list)
    for event in UsageEvent.objects.filter(site_id=job.site_id, job_id=job.id).order_by("attempt", "call"):
        calls[event.attempt].append(event)
    attempts = Attempt.objects.filter(job=job).order_by("number")
    billed = next((event for events in calls.values() for event in events if event.billable), None)
    return JobHistory(tuple(AttemptHistory(a, tuple(calls[a.number])) for a in attempts), billed)


def billed_calls_of(jobs: Sequence[Job]) -> dict[UUID, UsageEvent]:
    """Return the billed call of each of these jobs, which are of one site; jobs without one are left out."""
    if not jobs:
        return {}
    ids = [job.id for job in jobs]
    events = UsageEvent.objects.filter(site_id=jobs[0].site_id, job_id__in=ids, billable=True)
    return {event.job_id: event for event in events if event.job_id}


def result_of(job: Job) -> dict[str, Any] | None:
    """Return the answer in the wire format of the job's kind; None while there is none."""
    return None if job.result is None else msgspec.json.decode(job.result, type=dict[str, Any])


def _of_batch(site: Site, batch_id: str | None) -> Q:
    if batch_id is None:
        return Q()
    return Q(batch=None) if batch_id == WITHOUT_BATCH else Q(batch=find_batch(site, batch_id).id)


def _to_lookups(job_filter: JobFilter) -> dict[str, Any]:
    lookups = {
        "state": job_filter.state,
        "kind": job_filter.kind,
        "model": job_filter.model,
        "idempotency_key": job_filter.idempotency_key,
        "idempotency_scope": None if job_filter.idempotency_key is None else job_filter.idempotency_scope,
        "created_at__gt": job_filter.created_after,
        "created_at__lt": job_filter.created_before,
    }
    return {name: value for name, value in lookups.items() if value is not None}

"""Read jobs and their accounts, always within one site."""

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
from jobs.models import TERMINAL_STATES, Attempt, Job
from metering.models import UsageEvent
from tenants.models import Site

#: Asks for the jobs that came one by one.
WITHOUT_BATCH = "none"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What to list; None asks for everything."""

    state: str | None = None
    kind: str | None = None
    model: str | None = None
    idempotency_key: str | None = None
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
    """Everything that was done for a job. `billed` is the call that is paid for, if there was one."""

    attempts: tuple[AttemptHistory, ...]
    billed: UsageEvent | None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job has come."""

    state: str
    attempt: int
    #: Why it failed, or why its last attempt did.
    error_code: str = ""
    error_message: str = ""

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES


def progress_of(job: Job) -> JobProgress:
    return JobProgress(job.state, job.attempt, job.error_code, job.error_message)


def progress_by_id(job_ids: Sequence[UUID]) -> dict[UUID, JobProgress]:
    """Return how far these jobs have come, whosever they are."""
    jobs = Job.objects.filter(id__in=job_ids).only("state", "attempt", "error_code", "error_message")
    return {job.id: progress_of(job) for job in jobs}


def raw_result_of(job: Job) -> bytes | None:
    """Return the answer as it is kept, in the wire of the job's kind; None while there is none."""
    result: bytes | None = job.result
    return result


def find_job(site: Site, public_id: str, *, lock: bool = False) -> Job:
    """Return the site's job. Raises `JobNotFound`, also for another site's id and for nonsense."""
    try:
        wanted = from_public(Job.ID_PREFIX, public_id)
    except InvalidId:
        raise JobNotFound from None
    jobs = Job.objects.defer("payload")
    job = (jobs.select_for_update() if lock else jobs).filter(site=site, id=wanted).first()
    if job is None:
        raise JobNotFound
    return job


def list_jobs(site: Site, wanted: JobFilter, *, after: str | None, limit: int) -> list[Job]:
    """Return the site's jobs, newest first, those behind `after` (a job's public id).

    Raises:
        JobNotFound: `after` is no job of this site.
        BatchMissing: what is listed should be of a batch that the site does not have.
    """
    jobs = Job.objects.filter(_of_batch(site, wanted.batch_id), site=site, **_to_lookups(wanted))
    if after is not None:
        # Ids are made in order of time, so the id itself is the cursor.
        jobs = jobs.filter(id__lt=find_job(site, after).id)
    # The sealed columns are not listed, so they are not read either.
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
    """Return the call that is billed for each of these jobs of one site, as far as there is one."""
    if not jobs:
        return {}
    ids = [job.id for job in jobs]
    events = UsageEvent.objects.filter(site_id=jobs[0].site_id, job_id__in=ids, billable=True)
    return {event.job_id: event for event in events if event.job_id}


def result_of(job: Job) -> dict[str, Any] | None:
    """Return the answer in the wire of the job's kind; None while there is none."""
    return None if job.result is None else msgspec.json.decode(job.result, type=dict[str, Any])


def _of_batch(site: Site, batch_id: str | None) -> Q:
    if batch_id is None:
        return Q()
    return Q(batch=None) if batch_id == WITHOUT_BATCH else Q(batch=find_batch(site, batch_id).id)


def _to_lookups(wanted: JobFilter) -> dict[str, Any]:
    lookups = {
        "state": wanted.state,
        "kind": wanted.kind,
        "model": wanted.model,
        "idempotency_key": wanted.idempotency_key,
        "created_at__gt": wanted.created_after,
        "created_at__lt": wanted.created_before,
    }
    return {name: value for name, value in lookups.items() if value is not None}

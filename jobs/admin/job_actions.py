"""Operator actions on jobs. Each is written to the audit log and returns a result per job."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from core.crypto import CryptoError
from jobs.cancel import cancel
from jobs.errors import JobError
from jobs.models import Job, JobState
from jobs.retry import retry
from tenants.audit import Actor, audit
from tenants.errors import TenantError
from tenants.grant import UNRESTRICTED

#: Errors of an action on one job; the action continues with the other jobs.
EXPECTED_ERRORS = (JobError, TenantError, CryptoError)


@dataclass(frozen=True, slots=True)
class JobActionResult:
    """The result of an action on `job`. `new` is the job that retries it."""

    job: Job
    #: A short text, equal for all jobs with the same result.
    text: str
    done: bool
    new: Job | None = None


def cancel_jobs(jobs: Iterable[Job], actor: Actor) -> list[JobActionResult]:
    """Cancel these jobs one by one; one that cannot be canceled does not stop the others."""
    return [_cancel(job, actor) for job in jobs]


def retry_jobs(jobs: Iterable[Job], actor: Actor) -> list[JobActionResult]:
    """Retry these jobs one by one, as new jobs."""
    return [_retry(job, actor) for job in jobs]


def audit_reveal(job: Job, actor: Actor) -> None:
    """Write to the audit log that an operator reads a prompt and its answer."""
    audit(actor, "job.reveal", job.public_id, job.site)


def _cancel(job: Job, actor: Actor) -> JobActionResult:
    if job.state == JobState.CANCELED:
        return JobActionResult(job, "Already canceled", done=False)
    try:
        with transaction.atomic():
            after = cancel(job.site, job.public_id)
            audit(actor, "job.cancel", job.public_id, job.site, {"state": [job.state, after.state]})
    except EXPECTED_ERRORS as error:
        return JobActionResult(job, f"Not canceled. {error}", done=False)
    running = after.state == JobState.RUNNING
    return JobActionResult(job, "Cancel requested; its worker will stop it" if running else "Canceled", done=True)


def _retry(job: Job, actor: Actor) -> JobActionResult:
    try:
        with transaction.atomic():
            # A member of a batch keeps the restrictions that the batch was submitted with.
            new = retry(job.site, job.public_id, job.batch.grant if job.batch else UNRESTRICTED)
            audit(actor, "job.retry", job.public_id, job.site, {"state": job.state, "new_job": new.public_id})
    except EXPECTED_ERRORS as error:
        return JobActionResult(job, f"Not retried. {error}", done=False)
    return JobActionResult(job, "Retried", done=True, new=new)

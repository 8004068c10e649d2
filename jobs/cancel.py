"""Cancels a job: immediately while it is queued, through its worker while it runs."""

from django.db import transaction
from django.db.models.functions import Coalesce, Now

from jobs.errors import JobEnded
from jobs.events import record_job_end
from jobs.models import Job, JobState
from jobs.read import find_job
from tenants.models import Site


def cancel(site: Site, public_id: str) -> Job:
    """Cancel the job, or request its worker to, and return it. Idempotent.

    Raises:
        JobNotFound: no job of this site has that id.
        JobEnded: it has succeeded, failed or expired.
    """
    with transaction.atomic():
        job = find_job(site, public_id, lock=True)
        match job.state:
            case JobState.QUEUED:
                job.state, job.finished_at, job.cancel_requested_at = JobState.CANCELED, Now(), Now()
                job.save(update_fields=["state", "finished_at", "cancel_requested_at"])
                record_job_end(job)
            case JobState.RUNNING:
                job.cancel_requested_at = Coalesce("cancel_requested_at", Now())
                job.save(update_fields=["cancel_requested_at"])
            case JobState.CANCELED:
                pass
            case _:
                raise JobEnded(job.state)
    return find_job(site, public_id)

"""Tell the sites that jobs ended: the webhook events, in the transaction that ends the jobs."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from jobs.models import Job
from webhooks.record import NewEvent, record_events


def record_job_end(job: Job) -> None:
    """Record `job.<state>` for a job whose end is being written; see `record_job_ends`."""
    record_job_ends([job])


def record_job_ends(jobs: Iterable[Job]) -> None:
    """Record `job.<state>` for each job whose end is being written. Deliveries leave after commit.

    Members of a batch are told of by the batch's own events: ten thousand of them would be an attack on the site.
    """
    record_events(
        [
            NewEvent(job.site_id, f"job.{job.state}", job.id, job_event_data(job), terminal=True)
            for job in jobs
            if job.batch_id is None
        ]
    )


def job_event_data(job: Job) -> dict[str, Any]:
    """What the site learns. It is thin: the answer is fetched, so that it is never larger than a webhook may be."""
    return {
        "job_id": job.public_id,
        "kind": job.kind,
        "model": job.model,
        "state": job.state,
        "metadata": job.metadata,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "result_url": f"{settings.BASE_URL}/v1/jobs/{job.public_id}",
    }

"""Webhook events of jobs, recorded in the transaction that ends the jobs (transactional outbox)."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from jobs.models import Job
from webhooks.record import NewEvent, record_events


def record_job_end(job: Job) -> None:
    """Record `job.<state>` for a job that ends in this transaction; see `record_job_ends`."""
    record_job_ends([job])


def record_job_ends(jobs: Iterable[Job]) -> None:
    """Record `job.<state>` for each job that ends in this transaction. Deliveries are sent after commit.

    Members of a batch have no events of their own, only the batch has: ten thousand webhooks would overload a site.
    """
    record_events(
        [
            NewEvent(job.site_id, f"job.{job.state}", job.id, job_event_data(job), terminal=True)
            for job in jobs
            if job.batch_id is None
        ]
    )


def job_event_data(job: Job) -> dict[str, Any]:
    """Return the payload of a job event. It is thin: the answer is fetched, and may be larger than a webhook."""
    return {
        "job_id": job.public_id,
        "kind": job.kind,
        "model": job.model,
        "state": job.state,
        "metadata": job.metadata,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "result_url": f"{settings.BASE_URL}/v1/jobs/{job.public_id}",
    }

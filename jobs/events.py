"""Tell the site that a job ended: the webhook event, in the transaction that ends the job."""

from typing import Any

from django.conf import settings

from jobs.models import Job
from webhooks.record import record_event


def record_end(job: Job) -> None:
    """Record `job.<state>` for a job whose end is being written. Deliveries leave after commit."""
    record_event(job.site_id, f"job.{job.state}", job.id, to_data(job), terminal=True)


def to_data(job: Job) -> dict[str, Any]:
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

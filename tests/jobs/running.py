"""Running jobs, as rows."""

from uuid import UUID

from jobs.models import Job
from jobs.worker.claim import claim


def claim_one(worker_id: UUID) -> Job:
    """Claim the next job, and return its row."""
    (claimed,) = claim(worker_id, 1)
    return Job.objects.get(id=claimed.job_id)

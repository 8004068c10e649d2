"""The fence: whether an attempt is still its worker's own."""

from dataclasses import dataclass
from uuid import UUID

from jobs.models import Job, JobState


@dataclass(frozen=True, slots=True)
class Fence:
    """What proves that an attempt is its worker's: nobody else ever has all three."""

    job_id: UUID
    attempt: int
    worker_id: UUID


def lock_held(fence: Fence) -> Job | None:
    """Lock the job's row and return it; None if the attempt is no longer the worker's. In a transaction only."""
    # The sealed columns are not needed for an end, and one that does not open must not prevent it.
    held = (
        Job.objects.defer("payload", "result")
        .select_for_update()
        .filter(id=fence.job_id, state=JobState.RUNNING, attempt=fence.attempt, worker_id=fence.worker_id)
    )
    return held.first()

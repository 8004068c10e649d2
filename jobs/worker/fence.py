"""The fence: whether an attempt is still its worker's own."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from jobs.models import Job, JobState


@dataclass(frozen=True, slots=True)
class Fence:
    """What proves that an attempt is its worker's: nobody else ever has all three."""

    job_id: UUID
    attempt: int
    worker_id: UUID


def lock_owned_jobs(fences: Iterable[Fence]) -> dict[Fence, Job]:
    """Lock the jobs' rows, and return those whose attempt is still the worker's. In a transaction only.

    The rows are locked in the order of their ids, so that two groups never wait for each other.
    """
    wanted = set(fences)
    # The sealed columns are not needed for an end, and one that does not open must not prevent it.
    jobs = Job.objects.defer("payload", "result").filter(
        id__in=[fence.job_id for fence in wanted], state=JobState.RUNNING
    )
    found = ((_fence_of(job), job) for job in jobs.order_by("id").select_for_update(no_key=True))
    return {fence: job for fence, job in found if fence in wanted}


def _fence_of(job: Job) -> Fence | None:
    return Fence(job.id, job.attempt, job.worker_id) if job.worker_id else None

"""The fence: checks that an attempt still belongs to its worker, before anything of it is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from jobs.models import Job, JobState


@dataclass(frozen=True, slots=True)
class Fence:
    """The fencing token of an attempt: no other worker ever has the same three values."""

    job_id: UUID
    attempt: int
    worker_id: UUID


def lock_owned_jobs(fences: Iterable[Fence]) -> dict[Fence, Job]:
    """Lock the rows of the jobs, and return those whose attempt still belongs to the worker. In a transaction only.

    The rows are locked in the order of their ids, so that two groups cannot deadlock.
    """
    requested = set(fences)
    # The encrypted columns are not needed, and one that cannot be decrypted must not keep the job from finishing.
    jobs = Job.objects.defer("payload", "result").filter(
        id__in=[fence.job_id for fence in requested], state=JobState.RUNNING
    )
    locked = ((_fence_of(job), job) for job in jobs.order_by("id").select_for_update(no_key=True))
    return {fence: job for fence, job in locked if fence in requested}


def _fence_of(job: Job) -> Fence | None:
    return Fence(job.id, job.attempt, job.worker_id) if job.worker_id else None

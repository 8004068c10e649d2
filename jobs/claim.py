"""Claim queued jobs for a worker: one statement decides who runs what."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings

from jobs.models import Job

#: After its own deadline a worker needs this long to write the end; only then is the attempt taken from it.
GRACE_SECONDS = 30

#: Not read by a claim: one value that does not open must not keep a worker from all the others.
SEALED = ("payload", "result")
UNSEALED_COLUMNS = [field.column for field in Job._meta.concrete_fields if field.name not in SEALED]

# SKIP LOCKED lets many workers claim at once without waiting for, or doubling, each other. The lease is locked
# for share, so that it cannot be taken away between the check and the claim.
CLAIM = """
WITH live AS (
    SELECT 1 FROM jobs_workerlease
     WHERE worker_id = %(worker_id)s AND expires_at > clock_timestamp() AND NOT draining
       FOR SHARE
), ready AS (
    SELECT id FROM jobs_job
     WHERE state = 'queued' AND queue = %(queue)s AND available_at <= statement_timestamp()
       AND (expires_at IS NULL OR expires_at > statement_timestamp())
       AND EXISTS (SELECT 1 FROM live)
     ORDER BY priority, available_at, id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE jobs_job SET state = 'running', attempt = attempt + 1, worker_id = %(worker_id)s,
                        deadline_at = clock_timestamp() + %(deadline)s
      FROM ready WHERE jobs_job.id = ready.id
    RETURNING {columns}, jobs_job.payload AS sealed_payload
), history AS (
    INSERT INTO jobs_attempt (job_id, number, worker_id, started_at, outcome, error_code, error_message)
    SELECT id, attempt, %(worker_id)s, clock_timestamp(), '', '', '' FROM claimed
)
SELECT * FROM claimed ORDER BY priority, available_at, id
""".replace("{columns}", ", ".join(f"jobs_job.{column}" for column in UNSEALED_COLUMNS))


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job in the claimer's name, with its payload as it is stored."""

    job: Job
    sealed_payload: bytes


def claim(worker_id: UUID, limit: int, queue: str = "default") -> list[Claimed]:
    """Move up to `limit` ready jobs to running, in this worker's name, and return them.

    Empty if none is ready, or if the worker's lease has expired or is draining.
    Payloads are opened later, one by one.
    """
    deadline = timedelta(seconds=settings.JOB_ATTEMPT_SECONDS + GRACE_SECONDS)
    values = {"worker_id": worker_id, "queue": queue, "limit": limit, "deadline": deadline}
    return [Claimed(job, bytes(job.sealed_payload)) for job in Job.objects.raw(CLAIM, values)]  # type: ignore[attr-defined] # of CLAIM

"""Sweeps up lost jobs (of workers whose lease expired), hung attempts and expired jobs.

Every worker runs it each second; an advisory lock lets only one sweep at a time.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from core.crash import CrashPoint, crash_point
from jobs.models import ENCRYPTED_FIELDS, QUARANTINE_CRASHES, AttemptOutcome, Job, JobState
from jobs.payload import estimate_input_tokens
from jobs.worker.claim import PLAIN_COLUMNS
from jobs.worker.leases import delete_expired_leases, live_workers
from jobs.worker.transitions import JobProblem, Transition, apply_transitions
from metering.open_calls import close_lost_calls

log = structlog.get_logger(__name__)

#: A job that was lost with this many workers fails, however many other jobs were lost with it.
MAX_CRASHES = QUARANTINE_CRASHES + 1
#: Any number that no other advisory lock of this database uses.
SWEEP_LOCK = 0x4E49_4748
#: The maximum per sweep: more than a worker holds, so that all jobs of a lost worker are requeued in one sweep.
MAX_ROWS = 1000
EXPIRED_PROBLEM = JobProblem("expired", "The job was not started before it expired.")


class LossReason(StrEnum):
    """The reason why an attempt is taken from its worker."""

    WORKER_LOST = "worker_lost"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How many jobs a sweep moved."""

    lost: int = 0
    expired: int = 0


# The job row is locked, so that a finish just before wins, and one after it is fenced. While this statement waited for
# the lock, the job may have got a new worker, whose lease its snapshot does not contain: see `_loss_reason`.
ORPHANS = """
SELECT {columns}, (job.deadline_at <= clock_timestamp()) AS is_overdue
  FROM jobs_job job LEFT JOIN jobs_workerlease lease USING (worker_id)
 WHERE job.state = 'running'
   AND (lease.worker_id IS NULL OR lease.expires_at <= clock_timestamp() OR job.deadline_at <= clock_timestamp())
 ORDER BY job.worker_id, job.id LIMIT %s
   FOR NO KEY UPDATE OF job SKIP LOCKED
""".replace("{columns}", ", ".join(f"job.{column}" for column in PLAIN_COLUMNS))


def sweep(*, heartbeats_possible: bool = True, recovery_seconds: float = 0.0) -> SweepReport | None:
    """Sweep once. None if another worker is sweeping.

    No attempt counts as lost or late unless workers could send heartbeats, and Postgres has been up for
    `recovery_seconds`: after an outage all leases have expired, and answers wait to be written, through no fault of the
    workers.
    """
    with transaction.atomic():
        is_mine, up_seconds = _try_lock()
        if not is_mine:
            return None
        may_be_lost = heartbeats_possible and up_seconds >= recovery_seconds
        lost = _find_lost(may_be_lost)
        expired = _lock_expired()
        close_lost_calls([(move.job.id, move.job.attempt) for move in lost], estimate_input_tokens)
        apply_transitions([*lost, *(Transition(job, JobState.EXPIRED, problem=EXPIRED_PROBLEM) for job in expired)])
        for move in lost:
            _log_lost_attempt(move)
        delete_expired_leases()
        crash_point(CrashPoint.IN_SWEEP)
        return SweepReport(len(lost), len(expired))


def _try_lock() -> tuple[bool, float]:
    """Try to acquire the lock; also return for how long Postgres has been up, in seconds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(%s),"
            " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float",
            [SWEEP_LOCK],
        )
        is_mine, up_seconds = cursor.fetchone()
        return is_mine, up_seconds


def _find_lost(may_be_lost: bool) -> list[Transition]:
    orphans, live = _complete_workers(list(Job.objects.raw(ORPHANS, [MAX_ROWS]))), live_workers()
    suspects = Counter(job.worker_id for job in orphans if job.crash_count)
    return [
        _transition_of_lost(job, reason, is_suspect_alone=suspects[job.worker_id] == 1)
        for job in orphans
        if (reason := _loss_reason(job, live, may_be_lost))
    ]


def _complete_workers(orphans: list[Job]) -> list[Job]:
    """Leave the last worker to the next sweep if it may have more jobs: its suspects are judged together."""
    if len(orphans) < MAX_ROWS:
        return orphans
    return [job for job in orphans if job.worker_id != orphans[-1].worker_id] or orphans


def _loss_reason(job: Job, live: set[UUID], may_be_lost: bool) -> LossReason | None:
    """Return why the job is taken from its worker; None if it is not."""
    if not may_be_lost:
        return None
    if job.is_overdue:  # type: ignore[attr-defined] # of ORPHANS
        return LossReason.DEADLINE
    return LossReason.WORKER_LOST if job.worker_id not in live else None


def _transition_of_lost(job: Job, reason: LossReason, *, is_suspect_alone: bool) -> Transition:
    """Return the transition of a lost job: back to the queue, or to a terminal state.

    When a worker is lost, all its jobs are lost, often hundreds. A job that was lost before is a suspect. A suspect
    that is lost again is poison if it was the only suspect. If there were several, it is unknown which of them killed
    the worker: they go into quarantine, in which each runs without another of them, and a third loss identifies the
    poison.
    """
    is_crash = reason is LossReason.WORKER_LOST
    crashes, errors = job.crash_count + is_crash, job.error_count + (not is_crash)
    state, problem = JobState.QUEUED, None
    if job.cancel_requested_at is not None:
        state = JobState.CANCELED
    elif crashes >= (QUARANTINE_CRASHES if is_suspect_alone else MAX_CRASHES):
        state = JobState.FAILED
        problem = JobProblem("poison", f"{crashes} workers were lost while they ran this job.")
    elif errors >= job.max_attempts:
        state, problem = JobState.FAILED, JobProblem("deadline", "The attempts exceeded their deadline.")
    return Transition(
        job,
        state,
        AttemptOutcome.LOST,
        JobProblem(reason.value),
        problem,
        is_error=not is_crash,
        is_crash=is_crash,
    )


def _lock_expired() -> list[Job]:
    """Lock the queued jobs that have expired. Members of a batch expire with it (`jobs.batches.cancel`)."""
    waiting = Job.objects.defer(*ENCRYPTED_FIELDS).filter(state=JobState.QUEUED, expires_at__lte=Now(), batch=None)
    return list(waiting.order_by("id").select_for_update(skip_locked=True, no_key=True)[:MAX_ROWS])


def _log_lost_attempt(move: Transition) -> None:
    job = move.job
    log.warning(
        "attempt_lost",
        job=job.public_id,
        attempt=job.attempt,
        reason=move.attempt_problem.code,
        state=str(move.state),
    )

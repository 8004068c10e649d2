"""Find what nobody holds any more: lost workers' jobs, hung attempts, expired jobs. Safe to run anywhere, any time."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from jobs.claim import SEALED, UNSEALED_COLUMNS
from jobs.events import record_end
from jobs.leases import forget_dead_leases, live_workers
from jobs.models import Attempt, AttemptOutcome, Job, JobState
from jobs.payload import estimate_input_tokens
from metering.lost import close_lost_calls
from tenants.proof import forget_nonces

log = structlog.get_logger(__name__)

#: A job that killed this many workers is not given to another.
MAX_CRASHES = 2
#: Any number that no other advisory lock of this database uses.
SWEEP_LOCK = 0x4E49_4748
BATCH = 200


class Loss(StrEnum):
    """Why an attempt is taken from its worker."""

    WORKER_LOST = "worker_lost"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows a sweep moved."""

    lost: int = 0
    expired: int = 0


# The job row is locked, so that a finish which came just before wins, and one which comes after is fenced. While
# this waited for the lock the job may have got a new worker, whose lease its snapshot cannot see: see `_loss_of`.
ORPHANS = """
SELECT {columns}, (job.deadline_at <= clock_timestamp()) AS is_overdue
  FROM jobs_job job LEFT JOIN jobs_workerlease lease USING (worker_id)
 WHERE job.state = 'running'
   AND (lease.worker_id IS NULL OR lease.expires_at <= clock_timestamp() OR job.deadline_at <= clock_timestamp())
 ORDER BY job.id LIMIT %s
   FOR UPDATE OF job SKIP LOCKED
""".replace("{columns}", ", ".join(f"job.{column}" for column in UNSEALED_COLUMNS))


def sweep(*, workers_could_beat: bool = True, settle_seconds: float = 0.0) -> Swept | None:
    """Sweep once. None if another worker is sweeping at this moment.

    Nobody is taken for lost unless workers could renew their leases, and Postgres has been up for `settle_seconds`:
    after an outage every lease has run out, and that is nobody's crash.
    """
    with transaction.atomic():
        is_mine, up_seconds = _try_lock()
        if not is_mine:
            return None
        may_be_lost = workers_could_beat and up_seconds >= settle_seconds
        orphans, live = list(Job.objects.raw(ORPHANS, [BATCH])), live_workers()
        lost = [(job, loss) for job in orphans if (loss := _loss_of(job, live, may_be_lost))]
        expired = _overdue()
        for job, loss in lost:
            _take_away(job, loss)
        for job in expired:
            _expire(job)
        forget_dead_leases()
        forget_nonces()
        return Swept(len(lost), len(expired))


def _try_lock() -> tuple[bool, float]:
    """Try to be the one who sweeps; also return for how long Postgres has been up, in seconds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(%s),"
            " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float",
            [SWEEP_LOCK],
        )
        is_mine, up_seconds = cursor.fetchone()
        return is_mine, up_seconds


def _loss_of(job: Job, live: set[UUID], may_be_lost: bool) -> Loss | None:
    """Say why the job is taken from its worker; None if it is not."""
    if job.is_overdue:  # type: ignore[attr-defined] # of ORPHANS
        return Loss.DEADLINE
    return Loss.WORKER_LOST if may_be_lost and job.worker_id not in live else None


def _take_away(job: Job, loss: Loss) -> None:
    _close_attempt(job, loss)
    close_lost_calls(job.id, job.attempt, estimate_input_tokens(job))
    _requeue_or_end(job, loss)
    job.worker_id = job.deadline_at = None
    if job.is_terminal:
        job.finished_at = Now()
    job.save(
        update_fields=[
            "state",
            "worker_id",
            "deadline_at",
            "finished_at",
            "available_at",
            "crash_count",
            "error_count",
            "error_code",
            "error_message",
        ]
    )
    if job.is_terminal:
        record_end(job)
    log.warning("attempt_lost", job=job.public_id, attempt=job.attempt, why=loss.value, state=str(job.state))


def _close_attempt(job: Job, loss: Loss) -> None:
    Attempt.objects.filter(job=job, number=job.attempt, ended_at__isnull=True).update(
        ended_at=Now(), outcome=AttemptOutcome.LOST, error_code=loss.value
    )


def _requeue_or_end(job: Job, loss: Loss) -> None:
    if loss is Loss.WORKER_LOST:
        job.crash_count += 1
    else:
        job.error_count += 1
    if job.cancel_requested_at is not None:
        job.state = JobState.CANCELED
    elif job.crash_count >= MAX_CRASHES:
        job.state, job.error_code = JobState.FAILED, "poison"
        job.error_message = f"{job.crash_count} workers were lost while they ran this job."
    elif job.error_count >= job.max_attempts:
        job.state, job.error_code = JobState.FAILED, "deadline"
        job.error_message = "The attempts took longer than they may."
    else:
        job.state, job.available_at = JobState.QUEUED, Now()


def _overdue() -> list[Job]:
    waiting = Job.objects.defer(*SEALED).filter(state=JobState.QUEUED, expires_at__lte=Now()).order_by("id")
    return list(waiting.select_for_update(skip_locked=True)[:BATCH])


def _expire(job: Job) -> None:
    job.state, job.finished_at, job.error_code = JobState.EXPIRED, Now(), "expired"
    job.error_message = "The job was not begun before its expiry."
    job.save(update_fields=["state", "finished_at", "error_code", "error_message"])
    record_end(job)

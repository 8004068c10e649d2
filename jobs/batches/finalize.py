"""Finalizes batches whose members have all ended: exactly once, with counts, usage, files and event."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from core import clock
from core.crash import CrashPoint, crash_point
from core.database_threads import DATABASE_UNAVAILABLE
from core.ids import to_public
from jobs.batches.events import record_batch_end
from jobs.batches.progress import BatchUsage, MemberCounts, count_members, sum_usage
from jobs.batches.read import try_batch_lock
from jobs.batches.results import error_lines, output_lines
from jobs.models import Batch, BatchState, File, FilePurpose, Job, JobState, Pause

log = structlog.get_logger(__name__)

# Terminal members never change and none is added to a batch in progress, so once this condition holds, it stays true.
FINALIZE = """
UPDATE jobs_batch batch SET state = 'finalizing', finalizing_at = clock_timestamp()
 WHERE batch.state = 'in_progress'
   AND NOT EXISTS (SELECT 1 FROM jobs_job job WHERE job.batch_id = batch.id AND job.state IN ('queued', 'running'))
"""
FINALIZABLE = """
SELECT batch.id FROM jobs_batch batch
 WHERE batch.state = 'finalizing'
    OR (batch.state = 'cancelling' AND NOT EXISTS (
        SELECT 1 FROM jobs_job job WHERE job.batch_id = batch.id AND job.state IN ('queued', 'running')))
 ORDER BY batch.id
"""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What is frozen when a batch ends. Lengths are in bytes."""

    counts: MemberCounts
    usage: BatchUsage
    is_expired: bool
    output_length: int
    errors_length: int


def finalize_ended() -> int:
    """Finalize every batch whose members have all ended; return how many were finalized."""
    with connection.cursor() as cursor:
        cursor.execute(FINALIZE)
    return sum(map(_try_to_finalize, _finalizable()))


def _finalizable() -> list[UUID]:
    with connection.cursor() as cursor:
        cursor.execute(FINALIZABLE)
        return [batch_id for (batch_id,) in cursor.fetchall()]


def _try_to_finalize(batch_id: UUID) -> bool:
    try:
        return _finalize(batch_id)
    except DATABASE_UNAVAILABLE:
        raise
    except Exception:  # a bug that concerns one batch must not keep the others from being finalized
        log.exception("batch_finalize_failed", batch=to_public(Batch.ID_PREFIX, batch_id))
        return False


def _finalize(batch_id: UUID) -> bool:
    with try_batch_lock(batch_id) as is_mine:
        # The slow part comes before the transaction. That is safe, because terminal members do not change.
        return is_mine and write_end(batch_id, summarize(Batch.objects.get(id=batch_id)))


def summarize(batch: Batch) -> BatchSummary:
    """Count the members, sum up their usage and measure the lengths of the files."""
    counts = count_members([batch.id])[batch.id]
    return BatchSummary(
        counts=counts,
        usage=sum_usage([batch.id])[batch.id],
        is_expired=counts.expired > 0 or _has_stopped_late(batch),
        output_length=_length(output_lines(batch)) if counts.succeeded else 0,
        errors_length=_length(error_lines(batch)) if counts.unsuccessful else 0,
    )


def write_end(batch_id: UUID, summary: BatchSummary) -> bool:
    """Write the end of the batch with its files and its event, in one transaction; False if it had already ended."""
    with transaction.atomic():
        unfinished = Batch.objects.select_for_update(no_key=True).filter(
            id=batch_id, state__in=[BatchState.FINALIZING, BatchState.CANCELLING]
        )
        batch = unfinished.first()
        if batch is None:
            return False
        _freeze(batch, summary)
        batch.output_file = _create_file(batch, "output", summary.output_length)
        batch.error_file = _create_file(batch, "errors", summary.errors_length)
        batch.save()
        Pause.objects.filter(batch=batch).delete()
        record_batch_end(batch, summary.counts, summary.usage)
        crash_point(CrashPoint.IN_FINALIZE)
    log.info("batch_finished", batch=batch.public_id, state=str(batch.state), members=batch.total)
    return True


def _has_stopped_late(batch: Batch) -> bool:
    members = Job.objects.filter(batch=batch, state=JobState.CANCELED, cancel_requested_at__gte=batch.expires_at)
    return members.exists()


def _length(lines: Iterator[bytes]) -> int:
    return sum(map(len, lines))


def _freeze(batch: Batch, summary: BatchSummary) -> None:
    if batch.state == BatchState.CANCELLING:
        batch.state, batch.cancelled_at = BatchState.CANCELLED, Now()
    elif summary.is_expired:
        batch.state, batch.expired_at = BatchState.EXPIRED, Now()
    else:
        batch.state, batch.completed_at = BatchState.COMPLETED, Now()
    counts, usage = summary.counts, summary.usage
    batch.completed, batch.failed = counts.succeeded, counts.unsuccessful
    batch.canceled, batch.expired = counts.canceled, counts.expired
    batch.cost_pico_usd = usage.cost_pico_usd
    batch.input_tokens, batch.cached_input_tokens = usage.input_tokens, usage.cached_input_tokens
    batch.output_tokens, batch.reasoning_tokens = usage.output_tokens, usage.reasoning_tokens


def _create_file(batch: Batch, suffix: str, length: int) -> File | None:
    """Create the row of a file whose content is generated when it is read; None if it would be empty."""
    if not length:
        return None
    ttl_seconds = batch.output_expires_seconds
    return File.objects.create(
        site_id=batch.site_id,
        purpose=FilePurpose.BATCH_OUTPUT,
        filename=f"{batch.public_id}_{suffix}.jsonl",
        bytes=length,
        expires_at=clock.now() + timedelta(seconds=ttl_seconds) if ttl_seconds else None,
    )

"""Webhook events of batches, recorded in the transaction of the change that they report."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from core.ids import to_public
from jobs.batches.progress import BatchUsage, MemberCounts, counts_of, usage_of
from jobs.models import Batch, File
from metering.cost import format_usd_full
from webhooks.record import record_event

DUE_PROGRESS = """
SELECT id FROM jobs_batch
 WHERE state IN ('in_progress', 'cancelling') AND progress_seconds IS NOT NULL
   AND COALESCE(progress_sent_at, in_progress_at) <= clock_timestamp() - make_interval(secs => progress_seconds)
"""


def record_due_progress() -> int:
    """Record `batch.progress` for every batch whose interval has passed and which has progressed; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(DUE_PROGRESS)
        due = [batch_id for (batch_id,) in cursor.fetchall()]
    batches = list(Batch.objects.filter(id__in=due))
    counts = counts_of(batches)
    return sum(
        _record_if_due(batch.id, counts[batch.id])
        for batch in batches
        if counts[batch.id].ended > batch.progress_sent_count
    )


def _record_if_due(batch_id: UUID, counts: MemberCounts) -> bool:
    with transaction.atomic():
        # Of two workers, the second finds that this count was already sent, or that the batch has ended.
        is_due = Batch.objects.filter(id=batch_id, progress_sent_count__lt=counts.ended, completed=None).update(
            progress_sent_count=counts.ended, progress_sent_at=Now()
        )
        if is_due:
            batch = Batch.objects.get(id=batch_id)
            record_progress(batch, counts, usage_of([batch])[batch_id])
    return bool(is_due)


def record_progress(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> None:
    """Record `batch.progress`."""
    record_event(batch.site_id, "batch.progress", batch.id, batch_event_data(batch, counts, usage), terminal=False)


def record_batch_end(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> None:
    """Record `batch.<state>` for a batch that ends in this transaction."""
    record_event(batch.site_id, f"batch.{batch.state}", batch.id, batch_event_data(batch, counts, usage), terminal=True)


def batch_event_data(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> dict[str, Any]:
    """Return the payload of a batch event. It is thin: results are fetched."""
    return {
        "batch_id": batch.public_id,
        "status": batch.state,
        "request_counts": {"total": batch.total, "completed": counts.succeeded, "failed": counts.unsuccessful},
        "cost_usd": None if usage.cost_pico_usd is None else format_usd_full(usage.cost_pico_usd),
        "metadata": batch.metadata,
        "error": batch.errors[0] if batch.errors else None,
        "output_file_id": to_public(File.ID_PREFIX, batch.output_file_id) if batch.output_file_id else None,
        "error_file_id": to_public(File.ID_PREFIX, batch.error_file_id) if batch.error_file_id else None,
        "results_url": f"{settings.BASE_URL}/v1/batches/{batch.public_id}/results",
    }

"""Tell sites how their batches get on, as often as they asked for and only when there is something new."""

from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from jobs.batches.events import record_progress
from jobs.batches.progress import MemberCounts, counts_of, usage_of
from jobs.models import Batch

DUE_PROGRESS = """
SELECT id FROM jobs_batch
 WHERE state IN ('in_progress', 'cancelling') AND progress_seconds IS NOT NULL
   AND COALESCE(progress_sent_at, in_progress_at) <= clock_timestamp() - make_interval(secs => progress_seconds)
"""


def record_due_progress() -> int:
    """Record `batch.progress` for every batch that is due and has come further; return for how many."""
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
        # Whoever comes second at the same time finds that it was told already, or that it has ended.
        told = Batch.objects.filter(id=batch_id, progress_sent_count__lt=counts.ended, completed=None).update(
            progress_sent_count=counts.ended, progress_sent_at=Now()
        )
        if told:
            batch = Batch.objects.get(id=batch_id)
            record_progress(batch, counts, usage_of([batch])[batch_id])
    return bool(told)

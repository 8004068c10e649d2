"""Tell the site about a batch: the webhook event, in the transaction that makes it happen."""

from typing import Any

from django.conf import settings

from core.ids import to_public
from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.models import Batch, File
from metering.cost import format_usd_full
from webhooks.record import record_event


def record_progress(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> None:
    """Record `batch.progress`."""
    record_event(batch.site_id, "batch.progress", batch.id, batch_event_data(batch, counts, usage), terminal=False)


def record_batch_end(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> None:
    """Record `batch.<state>` for a batch whose end is being written."""
    record_event(batch.site_id, f"batch.{batch.state}", batch.id, batch_event_data(batch, counts, usage), terminal=True)


def batch_event_data(batch: Batch, counts: MemberCounts, usage: BatchUsage) -> dict[str, Any]:
    """What the site learns. It is thin: results are fetched."""
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

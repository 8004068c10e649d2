"""Stops a batch: because its site cancels it, or because its completion window is over."""

from typing import Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from jobs.batches.events import record_batch_end
from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.batches.read import find_batch
from jobs.errors import BatchEnded
from jobs.models import Batch, BatchState, JobState
from jobs.tasks import bell
from tenants.models import Site

#: How many members one statement changes.
CHUNK_ROWS = 2000

# The rows are chosen in a CTE, which runs once: a subquery may run again for each row, and exceed its LIMIT.
FINISH_QUEUED = """
WITH chosen AS (
    SELECT id FROM jobs_job WHERE batch_id = %(batch_id)s AND state = 'queued'
     LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs_job job
   SET state = %(state)s, finished_at = clock_timestamp(), error_code = %(code)s, error_message = %(message)s,
       cancel_requested_at = CASE WHEN %(state)s = 'canceled' THEN clock_timestamp() END
  FROM chosen WHERE job.id = chosen.id
"""
REQUEST_CANCEL = """
WITH chosen AS (
    SELECT id FROM jobs_job WHERE batch_id = %(batch_id)s AND state = 'running' AND cancel_requested_at IS NULL
     LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs_job job SET cancel_requested_at = clock_timestamp()
  FROM chosen WHERE job.id = chosen.id
"""
EXPIRED_ERROR = ("expired", "The request was not completed within the completion window of its batch.")


def cancel(site: Site, public_id: str) -> Batch:
    """Cancel the batch and return it. Completed requests keep their answers. Idempotent.

    Raises:
        BatchNotFound: no batch of this site has that id.
        BatchEnded: all its requests have ended.
    """
    with transaction.atomic():
        batch = find_batch(site, public_id, lock=True)
        match batch.state:
            case BatchState.VALIDATING:
                # A worker that reads its file meanwhile notices this and rolls back (`jobs.batches.expand`).
                _cancel_unread(batch)
            case BatchState.IN_PROGRESS:
                batch.state, batch.cancelling_at = BatchState.CANCELLING, Now()
                batch.save(update_fields=["state", "cancelling_at"])
                transaction.on_commit(bell.ring)
            case BatchState.CANCELLING | BatchState.CANCELLED:
                pass
            case _:
                raise BatchEnded(batch.state)
    if batch.state == BatchState.CANCELLING:
        # The maintenance does the rest. The first chunk is done here, so that a small batch stops immediately.
        _finish_queued(batch.id, JobState.CANCELED)
        _request_cancel(batch.id)
    return find_batch(site, public_id)


def _cancel_unread(batch: Batch) -> None:
    batch.state, batch.cancelling_at, batch.cancelled_at = BatchState.CANCELLED, Now(), Now()
    batch.completed = batch.failed = batch.canceled = batch.expired = batch.cost_pico_usd = 0
    batch.save()
    record_batch_end(batch, MemberCounts(), BatchUsage())


def stop_members() -> int:
    """End the queued members of batches that are canceled or expired, and request the cancel of running ones.

    Returns how many members were changed. Repeated until none is left: failed attempts go back to the queue meanwhile.
    """
    stopped = 0
    for batch_id in Batch.objects.filter(state=BatchState.CANCELLING).values_list("id", flat=True):
        stopped += _stop_members_of(batch_id, JobState.CANCELED)
    expired = Batch.objects.filter(state=BatchState.IN_PROGRESS, expires_at__lte=Now())
    for batch_id in expired.values_list("id", flat=True):
        stopped += _stop_members_of(batch_id, JobState.EXPIRED)
    return stopped


def _stop_members_of(batch_id: UUID, state: Literal[JobState.CANCELED, JobState.EXPIRED]) -> int:
    stopped = 0
    while ended := _finish_queued(batch_id, state):
        stopped += ended
    while requested := _request_cancel(batch_id):
        stopped += requested
    return stopped


def _finish_queued(batch_id: UUID, state: Literal[JobState.CANCELED, JobState.EXPIRED]) -> int:
    code, message = EXPIRED_ERROR if state == JobState.EXPIRED else ("", "")
    return _update(FINISH_QUEUED, batch_id, state=str(state), code=code, message=message)


def _request_cancel(batch_id: UUID) -> int:
    return _update(REQUEST_CANCEL, batch_id)


def _update(statement: str, batch_id: UUID, **values: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"batch_id": batch_id, "limit": CHUNK_ROWS, **values})
        return int(cursor.rowcount)

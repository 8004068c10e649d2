"""Expands the file of a batch into its members: all of them in one transaction, or none."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import BooleanField, F, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from core.crash import CrashPoint, crash_point
from core.crypto import UnknownEncryptionKey
from core.database_threads import DATABASE_UNAVAILABLE
from jobs.batches.create import common_model
from jobs.batches.events import record_batch_end
from jobs.batches.insert import insert_members
from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.batches.read import try_batch_lock
from jobs.batches.requests import BatchRequestReader, BatchRules
from jobs.errors import BatchIssue, InvalidBatch, UnreadableFile
from jobs.files.read import iter_lines
from jobs.models import Batch, BatchState, JobKind
from jobs.tasks import bell
from tenants.grant import KNOWN

log = structlog.get_logger(__name__)

#: How many workers may start to read a file. If all are lost with it, the batch fails.
MAX_READ_ATTEMPTS = 3
#: How many waiting batches are tried, to find one that no other worker reads.
MAX_CANDIDATES = 20

TOO_MANY_READ_ATTEMPTS = BatchIssue(
    "file_unreadable",
    f"{MAX_READ_ATTEMPTS} workers were lost while they read the file. Split the file, or look for unusual lines.",
)
FILE_DELETED = BatchIssue("file_not_found", "The file was deleted before it was read.")


GRANT_UNKNOWN = BatchIssue(
    "restriction_unknown", "No worker of the version that stored the credential's restrictions read the file in time."
)

#: A batch with a restriction of a newer version is left to workers of that version, until its window ends.
READABLE = Q(expires_at__lte=Now()) | Q(RawSQL("\"grant\" - %s::text[] = '{}'", [sorted(KNOWN)], BooleanField()))


class CanceledWhileReading(Exception):
    """The batch was canceled while its file was read; the transaction is rolled back."""


class WorkerStopping(Exception):
    """This worker is shutting down and must not wait for a large file; another worker starts over."""


def expand_one(is_stopping: Callable[[], bool] = lambda: False) -> bool:
    """Expand the longest waiting batch that no other worker reads; False if there is none that we can read."""
    waiting = Batch.objects.filter(READABLE, state=BatchState.VALIDATING).order_by("id")
    for batch_id in waiting.values_list("id", flat=True)[:MAX_CANDIDATES]:
        if is_stopping():
            return False
        with try_batch_lock(batch_id) as is_mine:
            if is_mine and (batch := _start_reading(Batch(id=batch_id))) and _expand(batch, is_stopping):
                return True
    return False


def _start_reading(batch: Batch) -> Batch | None:
    """Count the attempt before reading, so that a crash of the reader counts; None if the batch no longer waits."""
    waiting = Batch.objects.filter(id=batch.id, state=BatchState.VALIDATING)
    if not waiting.update(read_count=F("read_count") + 1):
        return None
    return Batch.objects.select_related("site", "input_file").get(id=batch.id)


def _expand(batch: Batch, is_stopping: Callable[[], bool]) -> bool:
    """Expand the batch, or fail it; False if it is left to another worker."""
    if batch.grant.unknown:
        log.error("grant_unknown", batch=batch.public_id, hint="update this worker to the version of the others")
        fail_batch(batch, [GRANT_UNKNOWN])
        return True
    if batch.read_count > MAX_READ_ATTEMPTS:
        fail_batch(batch, [TOO_MANY_READ_ATTEMPTS])
        return True
    try:
        total = _read_and_insert(batch, is_stopping)
        log.info("batch_expanded", batch=batch.public_id, members=total)
    except InvalidBatch as error:
        fail_batch(batch, error.issues)
    except UnreadableFile as error:
        fail_batch(batch, [BatchIssue("file_unreadable", str(error))])
    except CanceledWhileReading:
        log.info("batch_canceled_while_reading", batch=batch.public_id)
    except WorkerStopping:
        _release_reading(batch.id)
        return False
    except UnknownEncryptionKey:
        # Another process encrypts with a newer key than this one was started with, and can read it.
        _release_reading(batch.id)
        log.error("encryption_key_unknown", hint="restart this worker with the ENCRYPTION_KEYS of the others")
        return False
    except DATABASE_UNAVAILABLE:
        if not connection.is_usable():
            connection.close()
        with suppress(*DATABASE_UNAVAILABLE):
            _release_reading(batch.id)
        raise
    return True


def _release_reading(batch_id: UUID) -> None:
    """Undo the count of this attempt: the file was not the reason why it ended."""
    Batch.objects.filter(id=batch_id).update(read_count=F("read_count") - 1)


def _read_and_insert(batch: Batch, is_stopping: Callable[[], bool]) -> int:
    if batch.input_file is None:
        raise InvalidBatch([FILE_DELETED])
    reader = BatchRequestReader(BatchRules(batch.site, JobKind(batch.kind), batch.grant))
    with transaction.atomic():
        members = (read.member for read in reader.read_lines(_until(is_stopping, iter_lines(batch.input_file))))
        total = insert_members(batch, members)
        reader.check()
        is_waiting = Batch.objects.filter(id=batch.id, state=BatchState.VALIDATING).update(
            state=BatchState.IN_PROGRESS, in_progress_at=Now(), total=total, model=common_model(reader.models)
        )
        if not is_waiting:
            raise CanceledWhileReading
        transaction.on_commit(bell.ring)
        crash_point(CrashPoint.IN_EXPAND)
    return total


def _until(is_stopping: Callable[[], bool], lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        if is_stopping():
            raise WorkerStopping
        yield line


def fail_batch(batch: Batch, issues: "tuple[BatchIssue, ...] | list[BatchIssue]") -> None:
    """Fail the batch with these issues, and record its event."""
    with transaction.atomic():
        waiting = Batch.objects.select_for_update(no_key=True).filter(id=batch.id, state=BatchState.VALIDATING)
        row = waiting.first()
        if row is None:
            return
        row.state, row.failed_at = BatchState.FAILED, Now()
        row.errors = [issue.to_wire() for issue in issues]
        row.completed = row.failed = row.canceled = row.expired = 0
        row.cost_pico_usd = 0
        row.save()
        record_batch_end(row, MemberCounts(), BatchUsage())
    log.info("batch_rejected", batch=batch.public_id, issues=len(issues), first=issues[0].code)

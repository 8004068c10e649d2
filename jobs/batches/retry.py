"""Retries the failed requests of a batch as a new batch: terminal rows never change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import BinaryField
from django.db.models.functions import Cast, Now

from core import clock
from core.crypto import UnknownEncryptionKey
from core.ids import new_uuid
from inference.errors import RequestTooLong, UnknownModel
from jobs.batches.create import MAX_WINDOW, common_model, parse_window
from jobs.batches.insert import COLUMNS
from jobs.batches.read import find_batch
from jobs.batches.results import UNSUCCESSFUL, member_ids
from jobs.errors import BatchNotRetryable, InvalidBody, UnreadablePayload
from jobs.models import TERMINAL_BATCH_STATES, Batch, BatchState, Job
from jobs.payload import PAYLOAD_FIELD, PAYLOAD_VERSION, decrypt_body, encode_body
from jobs.permit import permit_body
from jobs.tasks import bell
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

# An unchanged payload is copied encrypted: encryption is bound to the table and column, which stay the same.
# The values are in the order of `jobs.batches.insert.COLUMNS`.
COPY_MEMBERS = """
INSERT INTO jobs_job ({columns}, retry_of_id)
SELECT fresh.id, old.custom_id, old.model, fresh.provider, old.request_hash, coalesce(fresh.payload, old.payload),
       old.site_id, %(batch_id)s, old.kind, old.queue, %(priority)s, 'queued',
       CASE WHEN fresh.payload IS NULL THEN old.payload_version ELSE %(payload_version)s END, old.metadata,
       %(request_id)s, %(expires_at)s, 0, %(max_attempts)s, 0, 0, '', '', old.id
  FROM unnest(%(old_ids)s::uuid[], %(new_ids)s::uuid[], %(providers)s::text[], %(payloads)s::bytea[])
    AS fresh (old_id, id, provider, payload)
  JOIN jobs_job old ON old.id = fresh.old_id AND old.payload IS NOT NULL
""".replace("{columns}", ", ".join(COLUMNS))

#: How many members are read, checked and copied in one step. Each payload may have a quarter of a megabyte, and a step
#: must end before Postgres' timeout for an idle transaction.
STEP_ROWS = 25


@dataclass(frozen=True, slots=True)
class RetriedMember:
    """A member that may be retried."""

    old_id: UUID
    provider: str
    #: Encrypted. None for the unchanged payload of the old member.
    payload: bytes | None


def retry_failed(site: Site, public_id: str, grant: Grant = UNRESTRICTED, request_id: str = "") -> Batch:
    """Create a batch of the requests that failed, expired or were canceled; it names the old one as `retry_of`.

    Raises:
        BatchNotFound: no batch of this site has that id.
        BatchNotRetryable: it has not ended, is already being retried, has no failed requests, its requests were erased,
            or this caller may not submit one of them.
        ModelNotAllowed: the site, or the caller's grant, may no longer use a model.
    """
    with transaction.atomic():
        # Locked, so that of two concurrent retries the second finds the batch of the first.
        old = find_batch(site, public_id, lock=True)
        _check(old)
        failed = Job.objects.filter(batch=old, state__in=UNSUCCESSFUL)
        new = Batch.objects.create(
            site_id=old.site_id,
            kind=old.kind,
            model=common_model(set(failed.values_list("model", flat=True).order_by())),
            state=BatchState.IN_PROGRESS,
            in_progress_at=Now(),
            total=failed.count(),
            request_hash=old.request_hash,
            metadata=old.metadata,
            request_id=request_id,
            priority=old.priority,
            max_attempts=old.max_attempts,
            grant=grant,
            progress_seconds=old.progress_seconds,
            completion_window=old.completion_window,
            output_expires_seconds=old.output_expires_seconds,
            expires_at=clock.now() + (parse_window(old.completion_window) or MAX_WINDOW),
            retry_of=old,
        )
        copied = sum(_copy(_permitted(site, grant, ids), new) for ids in member_ids(old, UNSUCCESSFUL, STEP_ROWS))
        if copied < new.total:
            # Counted after the copy: the retention may erase requests concurrently.
            raise BatchNotRetryable("Its requests were erased after the retention period of this site.")
        transaction.on_commit(bell.ring)
    return Batch.objects.get(id=new.id)


def _check(old: Batch) -> None:
    if not old.is_terminal:
        raise BatchNotRetryable(f"The batch is still in progress: it is {old.state}. Wait until it ends, or cancel it.")
    if not old.failed:
        raise BatchNotRetryable("Every request of the batch succeeded, or it never had one that could be read.")
    if active := old.retries.exclude(state__in=TERMINAL_BATCH_STATES).first():
        raise BatchNotRetryable(f"The batch is already being retried as {active.public_id}. Wait until that ends.")


def _permitted(site: Site, grant: Grant, ids: Sequence[UUID]) -> list[RetriedMember]:
    """Check that this caller may submit each member now, in the order of ids. Erased members are left out."""
    # Decrypted one by one: a payload that cannot be decrypted must name its member, not break the query.
    jobs = Job.objects.filter(id__in=ids).exclude(payload=None).annotate(encrypted=Cast("payload", BinaryField()))
    rows = jobs.order_by("id").values_list("id", "custom_id", "kind", "payload_version", "encrypted")
    return [_permit(site, grant, *row) for row in rows]


def _permit(
    site: Site, grant: Grant, job_id: UUID, custom_id: str, kind: str, version: int, encrypted: memoryview
) -> RetriedMember:
    try:
        body = decrypt_body(bytes(encrypted), version)
        permitted = permit_body(site, grant, kind, body)
    except (InvalidBody, UnknownModel, RequestTooLong, UnreadablePayload) as error:
        raise BatchNotRetryable(f"The request {custom_id!r} cannot be retried. {error}") from error
    except UnknownEncryptionKey as error:
        raise BatchNotRetryable(f"The request {custom_id!r} cannot be decrypted here. Contact the operator.") from error
    is_changed = permitted.body is not body
    return RetriedMember(
        job_id, permitted.provider, PAYLOAD_FIELD.encrypt(encode_body(permitted.body)) if is_changed else None
    )


def _copy(rows: Sequence[RetriedMember], new: Batch) -> int:
    """Copy the members whose requests are not erased; return how many."""
    values: dict[str, Any] = {
        "old_ids": [member.old_id for member in rows],
        "new_ids": [new_uuid() for _ in rows],
        "providers": [member.provider for member in rows],
        "payloads": [member.payload for member in rows],
        "payload_version": PAYLOAD_VERSION,
        "batch_id": new.id,
        "priority": new.priority,
        "request_id": new.request_id,
        "expires_at": new.expires_at,
        "max_attempts": new.max_attempts,
    }
    with connection.cursor() as cursor:
        cursor.execute(COPY_MEMBERS, values)
        return int(cursor.rowcount)

"""Inserts the members of a batch by COPY, many at a time."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import connection
from psycopg.types.json import Jsonb

from core.ids import new_uuid
from jobs.batches.requests import BatchMember
from jobs.models import BATCH_QUEUE, Batch, JobState
from jobs.payload import PAYLOAD_FIELD, PAYLOAD_VERSION

#: The size of one COPY, which keeps it far below the statement timeout.
CHUNK_ROWS, CHUNK_BYTES = 1000, 4_000_000

#: The columns of a new member with their types; the others have defaults or are NULL. `jobs.batches.retry` copies them.
COLUMNS = {
    "id": "uuid",
    "custom_id": "varchar",
    "model": "varchar",
    "provider": "varchar",
    "request_hash": "bytea",
    "payload": "bytea",
    "site_id": "uuid",
    "batch_id": "uuid",
    "kind": "varchar",
    "queue": "varchar",
    "priority": "int2",
    "state": "varchar",
    "payload_version": "int2",
    "metadata": "jsonb",
    "request_id": "varchar",
    "expires_at": "timestamptz",
    "attempt": "int4",
    "max_attempts": "int2",
    "crash_count": "int2",
    "error_count": "int2",
    "error_code": "varchar",
    "error_message": "varchar",
}
COPY = f"COPY jobs_job ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
TYPES = list(COLUMNS.values())


def insert_members(batch: Batch, members: Iterable[BatchMember]) -> int:
    """Insert the members as queued jobs, in the caller's transaction; return their number."""
    total = 0
    shared = _shared_values(batch)
    for rows in _chunks(members):
        _copy([(*row, *shared) for row in rows])
        total += len(rows)
    return total


def _chunks(members: Iterable[BatchMember]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows in chunks. No COPY is in progress while the next chunk is read and encrypted."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for member in members:
        rows.append(_own_values(member))
        size += len(member.payload)
        if len(rows) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _own_values(member: BatchMember) -> tuple[Any, ...]:
    digest = hashlib.sha256(member.payload).digest()
    # Ids are created in the order of the input, and results are listed in the order of ids.
    return new_uuid(), member.custom_id, member.model, member.provider, digest, PAYLOAD_FIELD.encrypt(member.payload)


def _shared_values(batch: Batch) -> tuple[Any, ...]:
    return (
        batch.site_id,
        batch.id,
        batch.kind,
        BATCH_QUEUE,
        batch.priority,
        str(JobState.QUEUED),
        PAYLOAD_VERSION,
        Jsonb({}),
        batch.request_id,
        batch.expires_at,
        0,
        batch.max_attempts,
        0,
        0,
        "",
        "",
    )


def _copy(rows: list[tuple[Any, ...]]) -> None:
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.set_types(TYPES)
        for row in rows:
            copy.write_row(row)

"""Who works on a batch: one at a time, until they are done or gone."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection

#: Any number that no other two-part advisory lock of this database uses.
BATCH_LOCK = 0x4E49_474A


@contextmanager
def held(batch_id: UUID) -> Iterator[bool]:
    """Hold the batch for this connection, over as many transactions as it takes; False if somebody else does.

    Nobody waits for it, and it ends with the connection: whoever dies with it leaves the batch to the next.
    What is written is decided by the row's state all the same; this keeps two from doing the same long work.
    """
    lock = (BATCH_LOCK, str(batch_id))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", lock)
        is_mine: bool = cursor.fetchone()[0]
    try:
        yield is_mine
    finally:
        if is_mine:
            with suppress(DatabaseError, InterfaceError), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", lock)

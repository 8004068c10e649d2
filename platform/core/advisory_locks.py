"""Locks that Postgres keeps for a connection: who alone does a piece of work, over as many transactions as it takes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError, connection


@contextmanager
def try_advisory_lock(namespace: int, key: str = "") -> Iterator[bool]:
    """Hold a lock for this connection; False if somebody else does.

    Nobody waits for it, and it ends with the connection: whoever dies with it leaves the work to the next. One whose
    connection broke may not know of that yet, so what is written must bear two that do the same.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (namespace, key))
        acquired: bool = cursor.fetchone()[0]
    try:
        yield acquired
    finally:
        if acquired:
            with suppress(DatabaseError, InterfaceError), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (namespace, key))

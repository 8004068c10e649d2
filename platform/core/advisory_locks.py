"""Advisory locks of Postgres: one process at a time does a piece of work, over any number of transactions."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError, connection


@contextmanager
def try_advisory_lock(namespace: int, key: str = "") -> Iterator[bool]:
    """Try to acquire a lock for this connection, without waiting; yield False if another connection holds it.

    The lock is released with the connection, so a killed process leaves the work to the next one. A process whose
    connection broke may not have noticed yet, so the work must tolerate two processes that do it concurrently.
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

"""Empties the tables of the tests' database."""

from django.core.management import call_command
from django.db import connection

#: Tables that Django fills in a new database, such as permissions.
KEPT = {"django_content_type", "auth_permission"}


def empty_tables() -> None:
    """Delete the rows of a test. Waits for running transactions, so that nothing is written afterwards."""
    if not _may_pass_by_triggers():
        call_command("flush", verbosity=0, interactive=False, reset_sequences=False)
        return
    names = sorted(set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT)
    tables = [connection.ops.quote_name(name) for name in names]
    # Truncating, as Django does it, makes new files for each table and each index: a hundred times the work.
    statements = [
        f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE",
        # Then the order of foreign keys does not matter, and the audit log's trigger allows deletes.
        "SET LOCAL session_replication_role = replica",
        *(f"DELETE FROM {table}" for table in tables),  # noqa: S608 (the names are our models')
    ]
    with connection.cursor() as cursor:
        cursor.execute("; ".join(statements))


def _may_pass_by_triggers() -> bool:
    """Whether the user is a superuser, as on the embedded server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('is_superuser') = 'on'")
        return bool(cursor.fetchone() == (True,))

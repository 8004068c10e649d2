"""`manage.py rotate_encryption_key`: re-encrypt all encrypted columns with the first key of ENCRYPTION_KEYS."""

from collections.abc import Iterator
from typing import Any

import msgspec
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, models, transaction
from psycopg import sql

from core.crypto import VERSION, CryptoError, new_key, parse_keyring
from core.fields import EncryptedField, keyring
from jobs.models import FileChunk

BATCH_SIZE = 500
#: For file chunks, half a megabyte each.
CHUNK_BATCH_SIZE = 10


class Command(BaseCommand):
    help = (
        "Re-encrypt every secret, payload and result with the first key of ENCRYPTION_KEYS. "
        "Before it, append a new key and restart all processes, then move the key to the front and restart them again "
        "(--new-key ID prints both values). After it, remove the old key. It can be interrupted and repeated."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--new-key", metavar="ID", help="print ENCRYPTION_KEYS with a new key at the end, then at the front"
        )
        parser.add_argument("--check", action="store_true", help="only count the values that still need an older key")
        parser.add_argument("--json", action="store_true", help="print one JSON object at the end")

    def handle(self, *_: Any, new_key: str | None, check: bool, json: bool, **__: Any) -> None:
        if new_key:
            for when, value in zip(("First", "Then"), _with_new_key(new_key), strict=True):
                self.stderr.write(f"{when}, set ENCRYPTION_KEYS to this value and restart all processes:")
                self.stdout.write(value)
            return
        counts = {}
        for model, field in encrypted_fields():
            name = f"{model._meta.label}.{field.name}"
            counts[name] = self._count_or_rotate(model, field, name, check)
        if json:
            report = {"active_key": keyring().active, "reencrypted": 0 if check else sum(counts.values())}
            self.stdout.write(msgspec.json.encode({**report, "rows": counts}).decode())
        elif check:
            self.stdout.write(f"{sum(counts.values())} values still need an older key than {keyring().active!r}.")
        else:
            self.stdout.write(f"Everything is encrypted with {keyring().active!r}. You can remove the older keys.")

    def _count_or_rotate(self, model: type[models.Model], field: EncryptedField, name: str, check: bool) -> int:
        total, done = len(_rows_with_older_key(model, field, limit=None)), 0
        batch = CHUNK_BATCH_SIZE if model is FileChunk else BATCH_SIZE
        while not check and (keys := _rows_with_older_key(model, field, limit=batch)):
            done += _reencrypt(model, field, keys)
            self.stderr.write(f"\r{name}: {done} of {total}", ending="" if done < total else "\n")
        return total if check else done


def encrypted_fields() -> Iterator[tuple[type[models.Model], EncryptedField]]:
    """Yield every encrypted column."""
    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, EncryptedField):
                yield model, field


def _with_new_key(key_id: str) -> tuple[str, str]:
    """Return the two values to set, one after the other: all processes must be able to decrypt before one encrypts."""
    fresh = f"{key_id}:{new_key()}"
    try:
        parse_keyring(f"{fresh},{settings.ENCRYPTION_KEYS}")
    except CryptoError as error:
        raise CommandError(str(error)) from error
    return f"{settings.ENCRYPTION_KEYS},{fresh}", f"{fresh},{settings.ENCRYPTION_KEYS}"


def _rows_with_older_key(model: type[models.Model], field: EncryptedField, limit: int | None) -> list[Any]:
    """Return the primary keys of rows whose value is not encrypted with the active key."""
    head = bytes([VERSION, len(keyring().active)]) + keyring().active.encode()
    statement = sql.SQL(
        "SELECT {key} FROM {table} WHERE {column} IS NOT NULL AND substring({column} FROM 1 FOR %s) <> %s"
        " ORDER BY {key} LIMIT %s"
    ).format(
        key=sql.Identifier(model._meta.pk.column or ""),
        table=sql.Identifier(model._meta.db_table),
        column=sql.Identifier(field.column or ""),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [len(head), head, limit])
        return [row[0] for row in cursor.fetchall()]


def _reencrypt(model: type[models.Model], field: EncryptedField, keys: list[Any]) -> int:
    """Decrypt the values of these rows and encrypt them again with the active key."""
    with transaction.atomic():
        rows = list(model._default_manager.select_for_update().filter(pk__in=keys).only("pk", field.name))
        model._default_manager.bulk_update(rows, [field.name])
    return len(rows)

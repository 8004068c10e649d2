"""Database fields that more than one room needs."""

from typing import Any

from django.conf import settings
from django.db import models

from core.crypto import Keyring, parse_keyring

_parsed: dict[str, Keyring] = {}


def keyring() -> Keyring:
    """Return the keys of `ENCRYPTION_KEYS`, parsed once for each value it had."""
    text = settings.ENCRYPTION_KEYS
    if text not in _parsed:
        _parsed[text] = parse_keyring(text)
    return _parsed[text]


class EncryptedField(models.BinaryField):  # type: ignore[type-arg] # generic in the stubs only
    """Bytes that are encrypted in the database and clear in Python. They cannot be searched.

    The text is bound to its table and column, so that it cannot be opened elsewhere.
    """

    @property
    def purpose(self) -> str:
        """What the text is bound to."""
        return f"{self.model._meta.db_table}.{self.column}"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is not None:
            value = self.encrypt(bytes(value))
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> bytes | None:
        return None if value is None else self.decrypt(bytes(value))

    def encrypt(self, plaintext: bytes) -> bytes:
        """Seal a value that is written past the ORM."""
        return keyring().encrypt(plaintext, purpose=self.purpose)

    def decrypt(self, sealed: bytes) -> bytes:
        """Open a value that was read past the ORM. Raises `CryptoError`."""
        return keyring().decrypt(sealed, purpose=self.purpose)

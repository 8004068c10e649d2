"""Database fields that more than one room uses."""

from typing import Any

from django.conf import settings
from django.db import models

from core.crypto import Keyring, parse_keyring

_parsed: dict[str, Keyring] = {}


def keyring() -> Keyring:
    """Return the keys of `ENCRYPTION_KEYS`, parsed once for each value of the setting."""
    text = settings.ENCRYPTION_KEYS
    if text not in _parsed:
        _parsed[text] = parse_keyring(text)
    return _parsed[text]


class EncryptedField(models.BinaryField):  # type: ignore[type-arg] # generic in the stubs only
    """Bytes that are encrypted in the database and plain in Python. They cannot be searched.

    A ciphertext is bound to its table and column, so that it does not decrypt elsewhere.
    """

    @property
    def purpose(self) -> str:
        """The table and column that the ciphertext is bound to."""
        return f"{self.model._meta.db_table}.{self.column}"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is not None:
            value = self.encrypt(bytes(value))
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> bytes | None:
        return None if value is None else self.decrypt(bytes(value))

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt a value that is written without the ORM."""
        return keyring().encrypt(plaintext, purpose=self.purpose)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt a value that was read without the ORM. Raises `CryptoError`."""
        return keyring().decrypt(ciphertext, purpose=self.purpose)

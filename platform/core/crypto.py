"""Encryption at rest: AES-256-GCM under a named key, so that keys can be rotated while old rows are still readable."""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
NONCE_BYTES = 12
KEY_BYTES = 32


class CryptoError(Exception):
    """
    * CryptoError
      + InvalidKeyring         the configured keys cannot be used
      + UnknownEncryptionKey   the text was encrypted with a key that is not configured any more
      + TamperedCiphertext     the text was changed, truncated, or encrypted for another purpose
    """


class InvalidKeyring(CryptoError): ...


class UnknownEncryptionKey(CryptoError): ...


class TamperedCiphertext(CryptoError): ...


@dataclass(frozen=True)
class Keyring:
    """Named keys: the active one encrypts; a ciphertext names the key that decrypts it."""

    active: str
    keys: Mapping[str, bytes] = field(repr=False)

    @cached_property
    def _ciphers(self) -> dict[str, AESGCM]:
        return {key_id: AESGCM(key) for key_id, key in self.keys.items()}

    def encrypt(self, plaintext: bytes, *, purpose: str) -> bytes:
        """Return `version, len(key id), key id, nonce, ciphertext`. It decrypts for the same purpose only."""
        header = bytes([VERSION, len(self.active)]) + self.active.encode()
        nonce = secrets.token_bytes(NONCE_BYTES)
        return header + nonce + self._ciphers[self.active].encrypt(nonce, plaintext, _associated_data(header, purpose))

    def decrypt(self, ciphertext: bytes, *, purpose: str) -> bytes:
        """Return the plaintext. Raises `UnknownEncryptionKey` or `TamperedCiphertext`."""
        key_id = key_id_of(ciphertext)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownEncryptionKey(f"Encrypted with key {key_id!r}, which is not in ENCRYPTION_KEYS.")
        header, rest = ciphertext[: 2 + len(key_id)], ciphertext[2 + len(key_id) :]
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _associated_data(header, purpose))
        except (InvalidTag, ValueError) as error:
            raise TamperedCiphertext(f"The ciphertext for {purpose} does not decrypt with key {key_id!r}.") from error

    def derive(self, label: str) -> dict[str, bytes]:
        """Derive a key for another use from each key (HKDF, RFC 5869), under the same names, the active one first.

        Keys of different labels reveal nothing about each other.
        """
        names = (self.active, *(name for name in self.keys if name != self.active))
        return {name: HKDF(SHA256(), KEY_BYTES, None, label.encode()).derive(self.keys[name]) for name in names}


def key_id_of(ciphertext: bytes) -> str:
    """Return the id of the key that a ciphertext needs."""
    if len(ciphertext) < 2 or ciphertext[0] != VERSION or len(ciphertext) < 2 + ciphertext[1] + NONCE_BYTES:
        raise TamperedCiphertext("This is not a ciphertext.")
    try:
        return ciphertext[2 : 2 + ciphertext[1]].decode("ascii")
    except UnicodeDecodeError as error:
        raise TamperedCiphertext("This is not a ciphertext.") from error


def parse_keyring(text: str) -> Keyring:
    """Parse `id:base64,id:base64`; the first key is the active one.

    Raises:
        InvalidKeyring: no key, a duplicate or invalid id, or a key that is not 32 bytes of base64.
    """
    keys: dict[str, bytes] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key_id, _, encoded = item.partition(":")
        if not key_id.isascii() or not key_id.isalnum() or len(key_id) > 32 or key_id in keys:
            raise InvalidKeyring(f"Key id {key_id[:40]!r} must be unique, and 1 to 32 letters or digits.")
        keys[key_id] = _decode_key(key_id, encoded)
    if not keys:
        raise InvalidKeyring("ENCRYPTION_KEYS has no key; set it to `id:base64 of 32 bytes`.")
    return Keyring(next(iter(keys)), keys)


def new_key() -> str:
    """Return 32 new random bytes, in the base64 that `parse_keyring` reads."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _decode_key(key_id: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise InvalidKeyring(f"Key {key_id!r} is not base64.") from error
    if len(key) != KEY_BYTES:
        raise InvalidKeyring(f"Key {key_id!r} has {len(key)} bytes; AES-256 needs {KEY_BYTES}.")
    return key


def _associated_data(header: bytes, purpose: str) -> bytes:
    # The header is authenticated too, so that a changed key id or version is detected.
    return header + b"\0" + purpose.encode()

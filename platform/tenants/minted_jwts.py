"""JWTs that Nightdesk mints and verifies itself, signed with keys that no site has: one set of keys per purpose.

The keys are derived from `ENCRYPTION_KEYS`. The first signs; all are accepted, so that rotation overlaps.
"""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec
from django.conf import settings

from core import clock
from core.fields import keyring
from tenants.errors import ExpiredCredentials, InvalidCredentials

#: More than any minted JWT; longer ones are not parsed.
MAX_LENGTH = 2048


class JwtPurpose(Enum):
    """The purpose of a minted JWT: the type in its header, and the label that its keys are derived with."""

    TICKET = "nightdesk-ticket+jwt"
    TOKEN = "nightdesk-token+jwt"  # noqa: S105 (a type, not a secret)

    @property
    def label(self) -> str:
        return f"nightdesk {self.value} HS256"


@dataclass(frozen=True, slots=True)
class MintedJwt:
    """A new ticket or token, which cannot be shown again."""

    text: str = field(repr=False)
    #: Seconds since 1970.
    expires_at: int

    @property
    def expires_at_utc(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)


@dataclass(frozen=True, slots=True)
class _SigningKeys:
    #: The encoded header of new JWTs, which names the active key.
    header: str
    #: Every header of JWTs that may still be valid, with its key.
    by_header: Mapping[str, bytes] = field(repr=False)


_derived_keys: dict[tuple[JwtPurpose, str], _SigningKeys] = {}


def mint(purpose: JwtPurpose, claims: Mapping[str, Any], *, seconds: int) -> MintedJwt:
    """Sign claims, without those that are None, that expire after `seconds`."""
    now = clock.unix_seconds()
    present = {name: value for name, value in claims.items() if value is not None}
    keys = _keys(purpose)
    content = f"{keys.header}.{_encode(msgspec.json.encode({**present, 'iat': now, 'exp': now + seconds}))}"
    return MintedJwt(f"{content}.{_mac(keys.by_header[keys.header], content)}", now + seconds)


def is_minted(purpose: JwtPurpose, text: str) -> bool:
    """Return whether a text has the header of such a JWT. Nothing is verified."""
    return text.partition(".")[0] in _keys(purpose).by_header


def verify(purpose: JwtPurpose, text: str) -> Mapping[str, Any]:
    """Return the claims of a JWT that Nightdesk minted for this purpose, and that has not expired.

    Raises:
        InvalidCredentials: Nightdesk did not mint it, or minted it for another purpose.
        ExpiredCredentials: it has expired.
    """
    header, _, rest = text.partition(".")
    payload, _, mac = rest.partition(".")
    # The header is compared, never parsed: a JWT cannot choose another algorithm, type or key.
    key = _keys(purpose).by_header.get(header)
    if key is None or len(text) > MAX_LENGTH or not text.isascii():
        raise InvalidCredentials
    # Compared as text: in base64, more than one text decodes to the same bytes.
    if not hmac.compare_digest(mac.encode(), _mac(key, f"{header}.{payload}").encode()):
        raise InvalidCredentials
    claims: dict[str, Any] = msgspec.json.decode(_decode(payload))
    if claims["exp"] <= clock.now().timestamp():
        raise ExpiredCredentials(
            "The ticket has expired." if purpose is JwtPurpose.TICKET else "The token has expired."
        )
    return claims


def _keys(purpose: JwtPurpose) -> _SigningKeys:
    """Return the keys of a purpose, derived once for each value of `ENCRYPTION_KEYS`."""
    cache_key = (purpose, settings.ENCRYPTION_KEYS)
    if cache_key not in _derived_keys:
        keys = {_header(purpose, name): key for name, key in keyring().derive(purpose.label).items()}
        _derived_keys[cache_key] = _SigningKeys(next(iter(keys)), keys)
    return _derived_keys[cache_key]


def _header(purpose: JwtPurpose, key_id: str) -> str:
    return _encode(msgspec.json.encode({"alg": "HS256", "typ": purpose.value, "kid": key_id}))


def _mac(key: bytes, content: str) -> str:
    return _encode(hmac.digest(key, content.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

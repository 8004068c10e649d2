"""JWTs that the desk mints and reads itself: signed with keys that no site has, one set of keys for each use.

The keys are derived from `ENCRYPTION_KEYS`. The first signs; all are accepted, so that replacing one overlaps.
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

#: Longer than any that was minted; nobody makes us parse more.
MAX_LENGTH = 2048


class JwtPurpose(Enum):
    """What a minted JWT is for: the type in its header, and the label its keys are derived with."""

    TICKET = "nightdesk-ticket+jwt"
    TOKEN = "nightdesk-token+jwt"  # noqa: S105 (a type, not a secret)

    @property
    def label(self) -> str:
        return f"nightdesk {self.value} HS256"


@dataclass(frozen=True, slots=True)
class MintedJwt:
    """A fresh ticket or token, which is shown now or never."""

    text: str = field(repr=False)
    #: Seconds since 1970.
    expires_at: int

    @property
    def expires_at_utc(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)


@dataclass(frozen=True, slots=True)
class _SigningKeys:
    #: The header that we write, encoded, with the active key.
    header: str
    #: Every header that we may have written, with its key.
    by_header: Mapping[str, bytes] = field(repr=False)


_derived_keys: dict[tuple[JwtPurpose, str], _SigningKeys] = {}


def mint(use: JwtPurpose, claims: Mapping[str, Any], *, seconds: int) -> MintedJwt:
    """Sign claims (those that are None are left out) which end after so many seconds."""
    now = clock.unix_seconds()
    stated = {name: value for name, value in claims.items() if value is not None}
    keys = _keys(use)
    content = f"{keys.header}.{_encode(msgspec.json.encode({**stated, 'iat': now, 'exp': now + seconds}))}"
    return MintedJwt(f"{content}.{_mac(keys.by_header[keys.header], content)}", now + seconds)


def is_minted(use: JwtPurpose, text: str) -> bool:
    """Say whether a text claims to be such a JWT of ours. It proves nothing."""
    return text.partition(".")[0] in _keys(use).by_header


def verify(use: JwtPurpose, text: str) -> Mapping[str, Any]:
    """Return the claims of a JWT that this desk minted for this use, and that has not ended.

    Raises:
        NotProven: the desk did not mint it, or minted it for another use.
        Stale: it has ended.
    """
    header, _, rest = text.partition(".")
    payload, _, given = rest.partition(".")
    # The header is compared, never read: there is no other algorithm, type or key that one could ask for.
    key = _keys(use).by_header.get(header)
    if key is None or len(text) > MAX_LENGTH or not text.isascii():
        raise InvalidCredentials
    # As text: more than one text stands for the same bytes in base64.
    if not hmac.compare_digest(given.encode(), _mac(key, f"{header}.{payload}").encode()):
        raise InvalidCredentials
    claims: dict[str, Any] = msgspec.json.decode(_decode(payload))
    if claims["exp"] <= clock.now().timestamp():
        raise ExpiredCredentials("The ticket has expired." if use is JwtPurpose.TICKET else "The token has expired.")
    return claims


def _keys(use: JwtPurpose) -> _SigningKeys:
    """Return the keys of a use, derived once for each value that `ENCRYPTION_KEYS` had."""
    wanted = (use, settings.ENCRYPTION_KEYS)
    if wanted not in _derived_keys:
        keys = {_header(use, name): key for name, key in keyring().derive(use.label).items()}
        _derived_keys[wanted] = _SigningKeys(next(iter(keys)), keys)
    return _derived_keys[wanted]


def _header(use: JwtPurpose, key_id: str) -> str:
    return _encode(msgspec.json.encode({"alg": "HS256", "typ": use.value, "kid": key_id}))


def _mac(key: bytes, content: str) -> str:
    return _encode(hmac.digest(key, content.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

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
from tenants.errors import NotProven, Stale

#: Longer than any that was minted; nobody makes us parse more.
LONGEST_TEXT = 2048


class Use(Enum):
    """What a minted JWT is for: the type in its header, and the label its keys are derived with."""

    TICKET = "nightdesk-ticket+jwt"
    TOKEN = "nightdesk-token+jwt"  # noqa: S105 (a type, not a secret)

    @property
    def label(self) -> str:
        return f"nightdesk {self.value} HS256"


@dataclass(frozen=True, slots=True)
class Minted:
    """A fresh ticket or token, which is shown now or never."""

    text: str = field(repr=False)
    #: Seconds since 1970.
    expires_at: int

    @property
    def ends_at(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)


@dataclass(frozen=True, slots=True)
class _Keys:
    #: The header that we write, encoded, with the active key.
    header: str
    #: Every header that we may have written, with its key.
    by_header: Mapping[str, bytes] = field(repr=False)


_derived: dict[tuple[Use, str], _Keys] = {}


def mint(use: Use, claims: Mapping[str, Any], *, seconds: int) -> Minted:
    """Sign claims (those that are None are left out) which end after so many seconds."""
    now = clock.unix_seconds()
    stated = {name: value for name, value in claims.items() if value is not None}
    keys = _keys(use)
    content = f"{keys.header}.{_encode(msgspec.json.encode({**stated, 'iat': now, 'exp': now + seconds}))}"
    return Minted(f"{content}.{_mac(keys.by_header[keys.header], content)}", now + seconds)


def is_minted(use: Use, text: str) -> bool:
    """Say whether a text claims to be such a JWT of ours. It proves nothing."""
    return text.partition(".")[0] in _keys(use).by_header


def read(use: Use, text: str) -> Mapping[str, Any]:
    """Return the claims of a JWT that this desk minted for this use, and that has not ended.

    Raises:
        NotProven: the desk did not mint it, or minted it for another use.
        Stale: it has ended.
    """
    header, _, rest = text.partition(".")
    payload, _, given = rest.partition(".")
    # The header is compared, never read: there is no other algorithm, type or key that one could ask for.
    key = _keys(use).by_header.get(header)
    if key is None or len(text) > LONGEST_TEXT or not text.isascii():
        raise NotProven
    # As text: more than one text stands for the same bytes in base64.
    if not hmac.compare_digest(given.encode(), _mac(key, f"{header}.{payload}").encode()):
        raise NotProven
    claims: dict[str, Any] = msgspec.json.decode(_decode(payload))
    if claims["exp"] <= clock.now().timestamp():
        raise Stale("The ticket has expired." if use is Use.TICKET else "The token has expired.")
    return claims


def _keys(use: Use) -> _Keys:
    """Return the keys of a use, derived once for each value that `ENCRYPTION_KEYS` had."""
    wanted = (use, settings.ENCRYPTION_KEYS)
    if wanted not in _derived:
        keys = {_header(use, name): key for name, key in keyring().derive(use.label).items()}
        _derived[wanted] = _Keys(next(iter(keys)), keys)
    return _derived[wanted]


def _header(use: Use, key_id: str) -> str:
    return _encode(msgspec.json.encode({"alg": "HS256", "typ": use.value, "kid": key_id}))


def _mac(key: bytes, content: str) -> str:
    return _encode(hmac.digest(key, content.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

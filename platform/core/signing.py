"""Signatures (HMAC-SHA256): of requests from sites, and of webhooks to them.

| form | signed text | key | encoding |
|---|---|---|---|
| request v1 | six lines, see `sign_request` | site's secret, as text | `v1=<hex>` |
| request, legacy | body followed by the timestamp's text | site's secret, as text | `<hex>` |
| Standard Webhooks v1 | `id . timestamp . body` | the decoded bytes after `whsec_` | `v1,<base64>` |
| `X-Sig` | body | the secret as shown, `whsec_` included | `sha256=<base64>` |

All are HMAC-SHA256. Standard Webhooks 1.0.0: https://www.standardwebhooks.com
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix, not a secret)
WEBHOOK_TOLERANCE_SECONDS = 300
#: How many entries of one `webhook-signature` header are checked.
MAX_SIGNATURES = 16


class InvalidSignature(Exception):
    """The signature, its timestamp or its id is not valid. The message is safe to show."""


# Requests from a site


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """The SHA-256 in hex of a body that is too large for memory; empty if it was not computed."""

    sha256: str


def sign_request(secret: str, *, timestamp: str, nonce: str, method: str, target: str, body: bytes | BodyDigest) -> str:
    """Sign a request in the form v1: `v1 LF timestamp LF nonce LF METHOD LF path?query LF hex sha256(body)`.

    `target` is the path with its query, exactly as sent.
    """
    digest = body.sha256 if isinstance(body, BodyDigest) else hashlib.sha256(body).hexdigest()
    content = "\n".join(("v1", timestamp, nonce, method.upper(), target, digest)).encode()
    return "v1=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def sign_request_legacy(secret: str, *, timestamp: str, body: bytes) -> str:
    """Sign a request in the legacy form, which covers neither path nor nonce."""
    return hmac.new(secret.encode(), body + timestamp.encode(), hashlib.sha256).hexdigest()


def signatures_match(one: str, other: str) -> bool:
    """Compare two signatures in constant time. Both may be any text."""
    return hmac.compare_digest(one.encode(), other.encode())


# Webhooks to a site


def new_webhook_secret() -> str:
    """Return `whsec_` and 32 new random bytes in base64."""
    return WEBHOOK_SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def webhook_key(secret: str) -> bytes:
    """Return the HMAC key that a `whsec_…` secret encodes. Raises `ValueError` for any other text."""
    if not secret.startswith(WEBHOOK_SECRET_PREFIX):
        raise ValueError(f"A webhook secret must begin with {WEBHOOK_SECRET_PREFIX}")
    try:
        return base64.b64decode(secret.removeprefix(WEBHOOK_SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("What follows whsec_ must be base64.") from error


def sign_webhook(secret: str, *, event_id: str, timestamp: int | str, body: bytes) -> str:
    """Sign one attempt in the Standard Webhooks form, `v1,<base64>`."""
    content = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + _hmac_base64(webhook_key(secret), content)


def sign_body(secret: str, body: bytes) -> str:
    """Sign in the `X-Sig` form. The key is the secret as displayed, so that a site can paste it."""
    return "sha256=" + _hmac_base64(secret.encode(), body)


def verify_webhook(
    secrets_shown: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: int,
) -> str:
    """Verify a received webhook with each of the valid secrets, and return its event id.

    `headers` must have lower-case names; `now` is in Unix seconds.

    Raises:
        InvalidSignature: a header is missing or malformed, the time is off by more than 300 s, or no entry matches.
    """
    event_id = headers.get("webhook-id") or ""
    timestamp = headers.get("webhook-timestamp") or ""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", event_id):
        raise InvalidSignature("webhook-id is missing or malformed.")
    # No leading zeros: the text is signed, and two texts must not stand for one time.
    if not re.fullmatch(r"(0|[1-9][0-9]{0,11})", timestamp):
        raise InvalidSignature("webhook-timestamp is missing or malformed.")
    if abs(now - int(timestamp)) > WEBHOOK_TOLERANCE_SECONDS:
        raise InvalidSignature("webhook-timestamp is too far from now.")
    expected = [sign_webhook(s, event_id=event_id, timestamp=timestamp, body=body) for s in secrets_shown]
    presented = (headers.get("webhook-signature") or "").split(" ")[:MAX_SIGNATURES]
    # Every pair is compared (constant time), so that the duration does not reveal which secret or entry matches.
    if not sum(signatures_match(entry, signature) for entry in presented for signature in expected):
        raise InvalidSignature("No signature matches.")
    return event_id


def _hmac_base64(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()

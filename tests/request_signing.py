"""Signs requests as a site's own code would: a second implementation, written from the documentation."""

import hashlib
import hmac
import itertools
from typing import Any

import jwt

from core import clock
from tenants.credentials import NewSite

_count = itertools.count(1)


def signed(
    made: NewSite,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    secret: str | None = None,
    timestamp: int | str | None = None,
    nonce: str | None = None,
) -> dict[str, str]:
    """Return the headers of a signed request, version v1."""
    time = str(clock.unix_seconds() if timestamp is None else timestamp)
    nonce = nonce or f"nonce-{next(_count):06}"
    text = f"v1\n{time}\n{nonce}\n{method}\n{target}\n{hashlib.sha256(body).hexdigest()}"
    key = secret or made.signing_secret.secret
    signature = hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
    return {
        "X-Site-ID": made.site.public_id,
        "X-Timestamp": time,
        "X-Nonce": nonce,
        "X-Signature": f"v1={signature}",
    }


def signed_legacy(made: NewSite, body: bytes = b"", *, timestamp: int | None = None) -> dict[str, str]:
    """Return the headers of a signed request, legacy form."""
    time = str(timestamp or clock.unix_seconds())
    signature = hmac.new(made.signing_secret.secret.encode(), body + time.encode(), "sha256").hexdigest()
    return {"X-Site-ID": made.site.public_id, "X-Timestamp": time, "X-Signature": signature}


def token(made: NewSite, secret: str | None = None, kid: str | None = None, **claims: Any) -> str:
    """Return a JWT of the site, valid for five minutes; a claim given as None is omitted."""
    now = clock.unix_seconds()
    wanted = {"sub": made.site.slug, "iat": now, "exp": now + 300, **claims}
    return jwt.encode(
        {name: value for name, value in wanted.items() if value is not None},
        secret or made.signing_secret.secret,
        algorithm="HS256",
        headers={"kid": kid} if kid else None,
    )


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}

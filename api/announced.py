"""Posts of files: who sends one is asked before its body is read, as far as the headers can prove it."""

import hashlib
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest

from core.signing import Hashed

if TYPE_CHECKING:
    # The web server imports this before there are models.
    from tenants.proof import Identity

#: Where the body goes to the disk, and not into memory.
UPLOADS = (("POST", "/v1/files"),)

#: How much of a body is in memory while it is hashed.
PIECE_BYTES = 1_048_576

ANNOUNCED, PROVEN = "nightdesk.announced", "nightdesk.proven"


def is_upload(method: str | None, path: str) -> bool:
    return (method, path) in UPLOADS


def is_askable(scope: dict[str, Any]) -> bool:
    """Can the headers prove who sends this? A signed request's signature covers the body."""
    return is_upload(scope["method"], scope["path"]) and all(n.lower() != b"x-signature" for n, _ in scope["headers"])


def is_announced(request: HttpRequest) -> bool:
    """Is this the question whether the body is welcome? Then there is none yet."""
    return ANNOUNCED in _scope_of(request)


def note_proven(request: HttpRequest, identity: "Identity") -> None:
    """Keep the answer for when the body is there: a token may have ended by then."""
    if is_announced(request):
        _scope_of(request)[PROVEN] = identity


def proven_before(request: HttpRequest) -> "Identity | None":
    """Return who was proven to send this, before its body was read."""
    identity: Identity | None = _scope_of(request).get(PROVEN)
    return identity


def signed_body(request: HttpRequest) -> bytes | Hashed:
    """Return what a signature covers: the body, or of a file no more than its hash."""
    if not is_upload(request.method, request.path):
        return request.body
    stream = request._stream
    if "X-Signature" not in request.headers or not stream.seekable():
        return Hashed("")
    digest = hashlib.sha256()
    while piece := stream.read(PIECE_BYTES):
        digest.update(piece)
    stream.seek(0)
    return Hashed(digest.hexdigest())


def _scope_of(request: HttpRequest) -> dict[str, Any]:
    scope: dict[str, Any] = getattr(request, "scope", {})
    return scope

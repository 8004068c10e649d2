"""Long bodies: who sends one is asked before it is read, as far as the headers can prove it."""

import hashlib
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

from api.body_limit import Scope, announced_length, limit_of
from api.reading import share_of
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


def is_asked_first(scope: Scope) -> bool:
    """Is the body so long, or might it be, that its sender must be somebody before it is read?"""
    method, path = scope["method"], scope["path"]
    if limit_of(method, path) <= settings.MAX_BODY_BYTES:
        return False
    length = announced_length(scope)
    return is_upload(method, path) or length is None or length > settings.MAX_BODY_BYTES


def is_announced(request: HttpRequest) -> bool:
    """Is this the question whether the body is welcome? Then there is none yet."""
    return ANNOUNCED in _scope_of(request)


def note_proven(request: HttpRequest, identity: "Identity") -> None:
    """Keep the answer for when the body is there: a token may have ended by then. What is there is not unproven now."""
    scope = _scope_of(request)
    if is_announced(request):
        scope[PROVEN] = identity
    elif share := share_of(scope):
        share.give_back()


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


def _scope_of(request: HttpRequest) -> Scope:
    scope: Scope = getattr(request, "scope", {})
    return scope

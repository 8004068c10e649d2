"""Long bodies: who sends one is asked before it is read, as far as the headers can prove it."""

import hashlib
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

from api.asgi_types import ASGIScope
from api.request_body.reader import reservation_of
from api.request_body.size_limit import body_limit_for, content_length
from core.signing import BodyDigest

if TYPE_CHECKING:
    # The web server imports this before there are models.
    from tenants.authentication import Identity

#: Where the body goes to the disk, and not into memory.
UPLOAD_PATHS = (("POST", "/v1/files"),)

#: How much of a body is in memory while it is hashed.
HASH_CHUNK_BYTES = 1_048_576

PREAUTHENTICATION_PASS, PREAUTHENTICATED = "nightdesk.preauthentication", "nightdesk.preauthenticated"


def is_upload(method: str | None, path: str) -> bool:
    return (method, path) in UPLOAD_PATHS


def needs_preauthentication(scope: ASGIScope) -> bool:
    """Is the body so long, or might it be, that its sender must be somebody before it is read?"""
    method, path = scope["method"], scope["path"]
    if body_limit_for(method, path) <= settings.MAX_BODY_BYTES:
        return False
    length = content_length(scope)
    return is_upload(method, path) or length is None or length > settings.MAX_BODY_BYTES


def is_preauthentication_pass(request: HttpRequest) -> bool:
    """Is this the question whether the body is welcome? Then there is none yet."""
    return PREAUTHENTICATION_PASS in _scope_of(request)


def record_authenticated(request: HttpRequest, identity: "Identity") -> None:
    """Keep the answer for when the body is there: a token may have ended by then. What is there is not unproven now."""
    scope = _scope_of(request)
    if is_preauthentication_pass(request):
        scope[PREAUTHENTICATED] = identity
    elif share := reservation_of(scope):
        share.release()


def preauthenticated_identity(request: HttpRequest) -> "Identity | None":
    """Return who was proven to send this, before its body was read."""
    identity: Identity | None = _scope_of(request).get(PREAUTHENTICATED)
    return identity


def signed_body(request: HttpRequest) -> bytes | BodyDigest:
    """Return what a signature covers: the body, or of a file no more than its hash."""
    if not is_upload(request.method, request.path):
        return request.body
    stream = request._stream
    if "X-Signature" not in request.headers or not stream.seekable():
        return BodyDigest("")
    digest = hashlib.sha256()
    while piece := stream.read(HASH_CHUNK_BYTES):
        digest.update(piece)
    stream.seek(0)
    return BodyDigest(digest.hexdigest())


def _scope_of(request: HttpRequest) -> ASGIScope:
    scope: ASGIScope = getattr(request, "scope", {})
    return scope

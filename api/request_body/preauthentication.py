"""Preauthentication: the sender of a large body is authenticated from the headers, before the body is read.

`api.asgi` runs such a request through Django twice. The first run, the preauthentication pass, has no body.
It goes through the same middleware, authentication and permission checks, and reaches the view, which returns 204 if
`is_preauthentication_pass`. An error response of this pass is sent without reading the body. In the second run the
body is there.

An API key or a token is verified in the first pass, and the identity is kept for the second
(`preauthenticated_identity`). A signature covers the body, so the first pass only identifies the site that the headers
claim, and rejects what cannot become valid; the signature is verified in the second pass. Until then the body counts
against the budget for unverified bodies (`reader.UnverifiedBodyBudget`).
"""

import hashlib
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

from api.asgi_types import ASGIScope
from api.request_body.reader import reservation_of
from api.request_body.size_limit import body_limit_for, content_length
from core.signing import BodyDigest

if TYPE_CHECKING:
    # The web server imports this module before Django has loaded the models.
    from tenants.authentication import Identity

#: Requests whose body is written to disk and never loaded into memory as a whole.
UPLOAD_PATHS = (("POST", "/v1/files"),)

#: Bytes of a body in memory while it is hashed.
HASH_CHUNK_BYTES = 1_048_576

PREAUTHENTICATION_PASS, PREAUTHENTICATED = "nightdesk.preauthentication", "nightdesk.preauthenticated"


def is_upload(method: str | None, path: str) -> bool:
    return (method, path) in UPLOAD_PATHS


def needs_preauthentication(scope: ASGIScope) -> bool:
    """Say whether the body is, or may become, so large that its sender must be authenticated first."""
    method, path = scope["method"], scope["path"]
    if body_limit_for(method, path) <= settings.MAX_BODY_BYTES:
        return False
    length = content_length(scope)
    return is_upload(method, path) or length is None or length > settings.MAX_BODY_BYTES


def is_preauthentication_pass(request: HttpRequest) -> bool:
    """Say whether this is the first of the two passes, which has no body."""
    return PREAUTHENTICATION_PASS in _scope_of(request)


def record_authenticated(request: HttpRequest, identity: "Identity") -> None:
    """Note that the sender is authenticated.

    In the first pass the identity is kept for the second, because a token may expire while the body is read. Otherwise
    the body is verified now, and its reservation is released.
    """
    scope = _scope_of(request)
    if is_preauthentication_pass(request):
        scope[PREAUTHENTICATED] = identity
    elif reservation := reservation_of(scope):
        reservation.release()


def preauthenticated_identity(request: HttpRequest) -> "Identity | None":
    """Return the caller that the first pass authenticated; None without such a pass, or if a signature is pending."""
    identity: Identity | None = _scope_of(request).get(PREAUTHENTICATED)
    return identity


def signed_body(request: HttpRequest) -> bytes | BodyDigest:
    """Return what a signature covers: the body, or the digest of an uploaded file."""
    if not is_upload(request.method, request.path):
        return request.body
    stream = request._stream
    if "X-Signature" not in request.headers or not stream.seekable():
        return BodyDigest("")
    digest = hashlib.sha256()
    while chunk := stream.read(HASH_CHUNK_BYTES):
        digest.update(chunk)
    stream.seek(0)
    return BodyDigest(digest.hexdigest())


def _scope_of(request: HttpRequest) -> ASGIScope:
    scope: ASGIScope = getattr(request, "scope", {})
    return scope

"""Authentication of REST requests for DRF, with the credentials and restrictions of `tenants`."""

from dataclasses import dataclass
from typing import cast

import structlog
from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from api.request_body.preauthentication import (
    is_preauthentication_pass,
    preauthenticated_identity,
    record_authenticated,
    signed_body,
)
from tenants.access import check_network_and_origin, client_address
from tenants.authentication import Identity, PresentedRequest, authenticate, preauthenticate

#: Key of `request.META` for the caller, for middleware that completes the response.
IDENTITY = "nightdesk.identity"


@dataclass(frozen=True, slots=True)
class SiteUser:
    """The `request.user` that DRF requires. The caller is `request.auth`, an `Identity`."""

    name: str
    is_authenticated: bool = True


class SiteAuthentication(BaseAuthentication):
    """Authenticates every request and sets `request.auth` to its `Identity`."""

    def authenticate(self, request: Request) -> tuple[SiteUser, Identity]:
        identity = preauthenticated_identity(request._request) or _authenticate(request._request)
        structlog.contextvars.bind_contextvars(site=identity.site.slug)
        request._request.META[IDENTITY] = identity
        check_network_and_origin(identity, client_address_of(request._request), cross_origin_of(request._request))
        return SiteUser(identity.site.slug), identity

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _authenticate(request: HttpRequest) -> Identity:
    """Authenticate the request; in the preauthentication pass, only identify the site that a signed one claims."""
    presented = to_presented_request(request)
    if is_preauthentication_pass(request) and "x-signature" in presented.headers:
        return preauthenticate(presented)
    identity = authenticate(presented)
    record_authenticated(request, identity)
    return identity


def identity_of(request: Request) -> Identity:
    """Return the caller."""
    return cast(Identity, request.auth)


def authenticated_identity(request: HttpRequest) -> Identity | None:
    """Return the caller if it was authenticated, even if it was not authorized; None otherwise."""
    identity: Identity | None = request.META.get(IDENTITY)
    return identity


def to_presented_request(request: HttpRequest) -> PresentedRequest:
    """Return the parts of a request that authentication uses."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return PresentedRequest(request.method or "", request_target(request), headers, signed_body(request))


def request_target(request: HttpRequest) -> str:
    """Return path and query as they were sent, before decoding: this is what a signature covers."""
    scope = getattr(request, "scope", None)
    if scope is None or "raw_path" not in scope:
        return request.get_full_path()
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return target.decode("latin-1")


def client_address_of(request: HttpRequest) -> str:
    """Return the client's address: of the connection, or as reported by TRUSTED_PROXY_COUNT proxies."""
    return client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXY_COUNT,
    )


def cross_origin_of(request: HttpRequest) -> str | None:
    """Return the origin of the requesting page; None for servers and for Nightdesk's own pages (the docs)."""
    origin = request.headers.get("Origin")
    return None if origin == server_origin(request) else origin


def server_origin(request: HttpRequest) -> str:
    """Return the scheme and host of the request."""
    return f"{request.scheme}://{request.get_host()}"

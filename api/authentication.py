"""Who asks, for DRF: the proofs and limits of `tenants`, put to a request."""

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
from tenants.authentication import Identity, PresentedRequest, preauthenticate
from tenants.authentication import authenticate as prove

#: Where a request keeps who asks, for what is written around its answer.
IDENTITY = "nightdesk.identity"


@dataclass(frozen=True, slots=True)
class SiteUser:
    """What DRF takes for a user. Who it is says `request.auth`."""

    name: str
    is_authenticated: bool = True


class SiteAuthentication(BaseAuthentication):
    """Make `request.auth` the proven `Identity`; every request must have one."""

    def authenticate(self, request: Request) -> tuple[SiteUser, Identity]:
        identity = preauthenticated_identity(request._request) or _authenticate(request._request)
        structlog.contextvars.bind_contextvars(site=identity.site.slug)
        request._request.META[IDENTITY] = identity
        check_network_and_origin(identity, client_address_of(request._request), cross_origin_of(request._request))
        return SiteUser(identity.site.slug), identity

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _authenticate(request: HttpRequest) -> Identity:
    """Authenticate the request; in the preauthentication pass of a signed one, return whom its headers claim."""
    asked = to_presented_request(request)
    if is_preauthentication_pass(request) and "x-signature" in asked.headers:
        return preauthenticate(asked)
    identity = prove(asked)
    record_authenticated(request, identity)
    return identity


def identity_of(request: Request) -> Identity:
    """Return who asks."""
    return cast(Identity, request.auth)


def authenticated_identity(request: HttpRequest) -> Identity | None:
    """Return who asks, if that was found out, whether or not they may."""
    identity: Identity | None = request.META.get(IDENTITY)
    return identity


def to_presented_request(request: HttpRequest) -> PresentedRequest:
    """Take from a request what can be proved with."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return PresentedRequest(request.method or "", request_target(request), headers, signed_body(request))


def request_target(request: HttpRequest) -> str:
    """Return path and query as they were sent, before anything was decoded."""
    scope = getattr(request, "scope", None)
    if scope is None or "raw_path" not in scope:
        return request.get_full_path()
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return target.decode("latin-1")


def client_address_of(request: HttpRequest) -> str:
    """Return the client's address, as far as our own proxies vouch for it."""
    return client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXY_COUNT,
    )


def cross_origin_of(request: HttpRequest) -> str | None:
    """Return the origin of the page that asks; None for servers, and for pages of this desk (the docs)."""
    origin = request.headers.get("Origin")
    return None if origin == server_origin(request) else origin


def server_origin(request: HttpRequest) -> str:
    """Return the scheme and host that the desk was asked at."""
    return f"{request.scheme}://{request.get_host()}"

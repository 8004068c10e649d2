"""Who asks, for DRF: the proofs and limits of `tenants`, put to a request."""

from dataclasses import dataclass
from typing import cast

import structlog
from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from api.announced import is_announced, note_proven, proven_before, signed_body
from tenants.limits import check_place, client_address
from tenants.proof import Identity, Presented, foresee, prove

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
        identity = proven_before(request._request) or _ask(request._request)
        structlog.contextvars.bind_contextvars(site=identity.site.slug)
        request._request.META[IDENTITY] = identity
        check_place(identity, address_of(request._request), foreign_origin_of(request._request))
        return SiteUser(identity.site.slug), identity

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _ask(request: HttpRequest) -> Identity:
    """Return who asks; where a signed body is only announced, who it would be (`api.announced`)."""
    asked = to_presented(request)
    if is_announced(request) and "x-signature" in asked.headers:
        return foresee(asked)
    identity = prove(asked)
    note_proven(request, identity)
    return identity


def identity_of(request: Request) -> Identity:
    """Return who asks."""
    return cast(Identity, request.auth)


def known_sender(request: HttpRequest) -> Identity | None:
    """Return who asks, if that was found out, whether or not they may."""
    identity: Identity | None = request.META.get(IDENTITY)
    return identity


def to_presented(request: HttpRequest) -> Presented:
    """Take from a request what can be proved with."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Presented(request.method or "", target_of(request), headers, signed_body(request))


def target_of(request: HttpRequest) -> str:
    """Return path and query as they were sent, before anything was decoded."""
    scope = getattr(request, "scope", None)
    if scope is None or "raw_path" not in scope:
        return request.get_full_path()
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return target.decode("latin-1")


def address_of(request: HttpRequest) -> str:
    """Return the client's address, as far as our own proxies vouch for it."""
    return client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXY_COUNT,
    )


def foreign_origin_of(request: HttpRequest) -> str | None:
    """Return the origin of the page that asks; None for servers, and for pages of this desk (the docs)."""
    origin = request.headers.get("Origin")
    return None if origin == own_origin_of(request) else origin


def own_origin_of(request: HttpRequest) -> str:
    """Return the scheme and host that the desk was asked at."""
    return f"{request.scheme}://{request.get_host()}"

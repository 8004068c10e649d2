"""Authentication on an event loop, which never waits for Postgres itself."""

import asyncio
import hashlib
from dataclasses import dataclass, replace

from core.database_threads import DatabaseThreadPool
from core.signing import BodyDigest
from tenants import tickets
from tenants.access import check_scope, echoed_origin, normalize_origin
from tenants.authentication import (
    Authenticated,
    BearerToken,
    PresentedRequest,
    RequestSignature,
    authenticate,
    find_credentials,
    verify_credentials,
)
from tenants.cached_lookups import with_cached_lookups
from tenants.errors import InvalidCredentials, OriginNotAllowed
from tenants.models import Site
from tenants.tickets import READ_SCOPES, ReadableKind, Ticket

#: A longer body is hashed in a thread: hashing a mebibyte would block the loop for about a millisecond.
INLINE_HASH_MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class AuthorizedReader:
    """A caller that may read one stream or job: the holder of a ticket, or the authenticated site."""

    site: Site
    #: The one origin that the ticket or token is bound to.
    origin: str | None
    #: None for a ticket.
    authenticated: Authenticated | None = None


async def authenticate_async(request: PresentedRequest, threads: DatabaseThreadPool) -> Authenticated:
    """Authenticate a request. The caller has to consume the nonce.

    Raises:
        Unauthenticated: as `authentication.verify_credentials` does; also `ReplayedRequest` for a legacy signature: it
            covers no path, so it is consumed in one place for all paths: Postgres.
        DATABASE_UNAVAILABLE: a look-up is not cached, and Postgres is unavailable.
    """
    credentials = find_credentials(request.headers)
    if isinstance(credentials, RequestSignature):
        if credentials.is_legacy:
            return Authenticated(await threads.run(authenticate, request))
        request = await _with_hashed_body(request)
    return await with_cached_lookups(lambda lookups: verify_credentials(request, lookups), threads)


async def authenticate_reader(
    request: PresentedRequest, kind: ReadableKind, public_id: str, *, origin: str | None, threads: DatabaseThreadPool
) -> AuthorizedReader:
    """Authorize a read of this stream or job: by its ticket, or by any other credential with the scope for it.

    `origin` is that of the page; None for servers and Nightdesk's own pages. Without a ticket, the caller has to check
    network and origin (`access.check_network_and_origin`) and to consume the nonce.

    Raises:
        Unauthenticated: the credentials are not valid, or the ticket is for another stream or job.
        OriginNotAllowed: the ticket is for another origin.
        InsufficientScope: the credential lacks the scope to read this.
    """
    credentials = find_credentials(request.headers)
    if isinstance(credentials, BearerToken) and tickets.is_ticket(credentials.text):
        ticket = tickets.verify(credentials.text)
        tickets.authorize(ticket, kind, public_id, origin=origin)
        return AuthorizedReader(await _site_for_ticket(ticket, origin, threads), ticket.origin)
    authenticated = await authenticate_async(request, threads)
    check_scope(authenticated.identity, READ_SCOPES[kind])
    return AuthorizedReader(authenticated.identity.site, authenticated.identity.origin, authenticated=authenticated)


async def is_site_origin(origin: str, threads: DatabaseThreadPool) -> bool:
    """Return whether the origin belongs to any active site: for preflights and for unauthenticated callers."""
    normalized = normalize_origin(origin)
    return await with_cached_lookups(lambda lookups: lookups.is_known_origin(normalized), threads)


async def _site_for_ticket(ticket: Ticket, origin: str | None, threads: DatabaseThreadPool) -> Site:
    """Return the ticket's site, if it is active, the ticket's credential live, and the origin still the site's."""
    site = await with_cached_lookups(lambda lookups: lookups.site_for_credential(ticket.credential_id), threads)
    if site is None or site.public_id != ticket.site:
        raise InvalidCredentials
    if origin is not None and echoed_origin(origin, site, ticket.origin) is None:
        raise OriginNotAllowed("This origin is not among the site's origins.")
    return site


async def _with_hashed_body(request: PresentedRequest) -> PresentedRequest:
    """Hash a long body in a thread."""
    body = request.body
    if isinstance(body, BodyDigest) or len(body) <= INLINE_HASH_MAX_BYTES:
        return request
    digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
    return replace(request, body=BodyDigest(digest))

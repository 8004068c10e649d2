"""Proofs on an event loop: who asks, without ever waiting for Postgres on the loop."""

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

#: A body longer than this is hashed in a thread: a mebibyte takes the loop about a millisecond.
INLINE_HASH_MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class AuthorizedReader:
    """Who may read one stream or job: the holder of a ticket, or the site itself with a proof."""

    site: Site
    #: The one origin that ticket or token is bound to.
    origin: str | None
    ticket: Ticket | None = None
    #: None for a ticket.
    authenticated: Authenticated | None = None


async def authenticate_async(asked: PresentedRequest, threads: DatabaseThreadPool) -> Authenticated:
    """Return who asks. The nonce in it has yet to be used up.

    Raises:
        Unauthenticated: as `proof.check` does; and `Replayed` for the older form, whose signatures bind no address, so
            that they are used up in one place for all addresses, which is Postgres.
        OperationalError: it has to be asked for, and Postgres does not answer.
    """
    given = find_credentials(asked.headers)
    if isinstance(given, RequestSignature):
        if given.is_legacy:
            return Authenticated(await threads.run(authenticate, asked))
        asked = await _with_hashed_body(asked)
    return await with_cached_lookups(lambda lookups: verify_credentials(asked, lookups), threads)


async def authenticate_reader(
    asked: PresentedRequest, what: ReadableKind, public_id: str, *, origin: str | None, threads: DatabaseThreadPool
) -> AuthorizedReader:
    """Return who may read this stream or job: by its ticket, or by any proof with the scope for it.

    `origin` is that of the page that asks; None for servers and the desk's own pages. For a proof that is no ticket,
    address and origin have yet to be checked (`limits.check_place`), and the nonce to be used up.

    Raises:
        Unauthenticated: neither is proven, or the ticket is for something else.
        OriginNotAllowed: the ticket is for another origin.
        ScopeMissing: the proof is not for reading this.
    """
    given = find_credentials(asked.headers)
    if isinstance(given, BearerToken) and tickets.is_ticket(given.text):
        ticket = tickets.verify(given.text)
        tickets.authorize(ticket, what, public_id, origin=origin)
        return AuthorizedReader(await _site_for_ticket(ticket, origin, threads), ticket.origin, ticket=ticket)
    authenticated = await authenticate_async(asked, threads)
    check_scope(authenticated.identity, READ_SCOPES[what])
    return AuthorizedReader(authenticated.identity.site, authenticated.identity.origin, authenticated=authenticated)


async def is_site_origin(origin: str, threads: DatabaseThreadPool) -> bool:
    """Say whether pages of this origin are those of any active site, for preflights and for answers to nobody."""
    asking = normalize_origin(origin)
    return await with_cached_lookups(lambda lookups: lookups.is_known_origin(asking), threads)


async def _site_for_ticket(ticket: Ticket, origin: str | None, threads: DatabaseThreadPool) -> Site:
    """Return the ticket's site, if it is active, the credential still live, and the origin still the site's."""
    site = await with_cached_lookups(lambda lookups: lookups.site_for_credential(ticket.credential_id), threads)
    if site is None or site.public_id != ticket.site:
        raise InvalidCredentials
    if origin is not None and echoed_origin(origin, site, ticket.origin) is None:
        raise OriginNotAllowed("This origin is not among the site's origins.")
    return site


async def _with_hashed_body(asked: PresentedRequest) -> PresentedRequest:
    """Hash a long body beside the loop."""
    body = asked.body
    if isinstance(body, BodyDigest) or len(body) <= INLINE_HASH_MAX_BYTES:
        return asked
    digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
    return replace(asked, body=BodyDigest(digest))

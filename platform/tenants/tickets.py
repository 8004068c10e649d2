"""Tickets, for browsers: each reads one stream or one job of one site, from one origin, and starts nothing.

A ticket is not a credential: no other endpoint accepts it. Its holder may open the stream or job any number of times
until it expires (so a lost connection can resume); a connection that is open by then may run to its end.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.conf import settings

from tenants import minted_jwts
from tenants.access import TokenScope, normalize_origin, origin_to_bind
from tenants.authentication import Identity
from tenants.errors import MalformedCredentials, OriginNotAllowed, ScopeExceedsGrant
from tenants.minted_jwts import JwtPurpose, MintedJwt


class ReadableKind(StrEnum):
    """What a ticket can read: its audience (`aud`)."""

    STREAM = "stream"
    JOB = "job"


#: The scopes for reading these without a ticket, and for minting one.
READ_SCOPES = {ReadableKind.STREAM: TokenScope.STREAMS_READ, ReadableKind.JOB: TokenScope.JOBS_READ}


@dataclass(frozen=True, slots=True)
class Ticket:
    """A verified ticket."""

    kind: ReadableKind
    #: The one stream or job.
    public_id: str
    #: The site's public id.
    site: str
    #: The credential that requested the ticket; the ticket is invalid once that is revoked.
    credential_id: str
    #: None: it is for servers, which send no `Origin`, and for Nightdesk's own pages.
    origin: str | None
    #: Seconds since 1970.
    expires_at: int


def mint(
    identity: Identity, kind: ReadableKind, public_id: str, *, origin: str | None = None, own_origin: str = ""
) -> MintedJwt:
    """Mint a ticket for a stream or job. The caller has to check that it belongs to the identity's site.

    `origin` is that of the page that will read; by default, the one that the credential itself is bound to.

    Raises:
        OriginNotAllowed: it is not one of the site's origins.
        ScopeExceedsGrant: the credential is bound to another origin.
    """
    if (
        identity.origin is not None
        and origin is not None
        and normalize_origin(origin) != normalize_origin(identity.origin)
    ):
        raise ScopeExceedsGrant("The token is bound to an origin; its tickets must be bound to the same one.")
    claims = {
        "aud": kind.value,
        "sub": public_id,
        "site": identity.site.public_id,
        "cred": identity.credential_id,
        "origin": origin_to_bind(identity.origin if origin is None else origin, identity.site, own_origin=own_origin),
    }
    return minted_jwts.mint(JwtPurpose.TICKET, claims, seconds=settings.TICKET_TTL_SECONDS)


def is_ticket(text: str) -> bool:
    """Return whether a text has the header of a ticket. Nothing is verified."""
    return minted_jwts.is_minted(JwtPurpose.TICKET, text)


def verify(text: str) -> Ticket:
    """Verify a ticket and return what it says.

    Raises:
        InvalidCredentials: Nightdesk did not mint it.
        ExpiredCredentials: it has expired.
    """
    claims = minted_jwts.verify(JwtPurpose.TICKET, text)
    return Ticket(
        ReadableKind(claims["aud"]), claims["sub"], claims["site"], claims["cred"], claims.get("origin"), claims["exp"]
    )


def authorize(ticket: Ticket, kind: ReadableKind, public_id: str, *, origin: str | None) -> None:
    """Check that a ticket is for this stream or job, and this origin (None: a server, or a page of Nightdesk).

    Raises:
        MalformedCredentials: it is for another stream or job.
        OriginNotAllowed: it is bound to another origin, or to none.
    """
    if (ticket.kind, ticket.public_id) != (kind, public_id):
        raise MalformedCredentials("The ticket is for another stream or job. Mint one for this stream or job.")
    if ticket.origin is None and origin is not None:
        raise OriginNotAllowed(
            "The ticket is bound to no origin, so no page may use it; request one for the origin of the page."
        )
    if ticket.origin is not None and normalize_origin(origin or "") != ticket.origin:
        raise OriginNotAllowed(
            f"The ticket may be used only from pages of {ticket.origin}, which send the header Origin."
        )

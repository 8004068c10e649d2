"""Tickets: what a browser gets. Each reads one stream or one job of one site, from one origin, and starts nothing.

A ticket is no credential: no other address takes it for a proof. Whoever holds it may open what it names as often as
they like within its minutes (that is how a lost connection resumes); what is open by then may run to its end.
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
    """What a ticket may be for: its audience (`aud`)."""

    STREAM = "stream"
    JOB = "job"


#: What it takes to read these without a ticket, or to mint one.
READ_SCOPES = {ReadableKind.STREAM: TokenScope.STREAMS_READ, ReadableKind.JOB: TokenScope.JOBS_READ}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket reads, and from where."""

    what: ReadableKind
    #: The one stream or job.
    public_id: str
    #: The site's public id.
    site: str
    #: The credential that was proved with when the ticket was minted, and without which it ends.
    credential_id: str
    #: None: it is for servers, which send no `Origin`, and for the desk's own pages.
    origin: str | None
    #: Seconds since 1970; until then it can be opened.
    expires_at: int


def mint(
    identity: Identity, what: ReadableKind, public_id: str, *, origin: str | None = None, own_origin: str = ""
) -> MintedJwt:
    """Return a ticket for a stream or job of the identity's site. That it is the site's is for the caller to know.

    `origin` is that of the page which is to read; without it, what the proof itself is bound to.

    Raises:
        OriginNotAllowed: it is none of the site's origins.
        WiderThanProof: the proof is bound to another origin.
    """
    if (
        identity.origin is not None
        and origin is not None
        and normalize_origin(origin) != normalize_origin(identity.origin)
    ):
        raise ScopeExceedsGrant("The token is bound to an origin; its tickets must be bound to the same one.")
    claims = {
        "aud": what.value,
        "sub": public_id,
        "site": identity.site.public_id,
        "cred": identity.credential_id,
        "origin": origin_to_bind(identity.origin if origin is None else origin, identity.site, own_origin=own_origin),
    }
    return minted_jwts.mint(JwtPurpose.TICKET, claims, seconds=settings.TICKET_TTL_SECONDS)


def is_ticket(text: str) -> bool:
    """Say whether a text claims to be a ticket. It proves nothing."""
    return minted_jwts.is_minted(JwtPurpose.TICKET, text)


def verify(text: str) -> Ticket:
    """Return what a ticket says, once it is clear that it is ours and has not ended.

    Raises:
        NotProven: it is no ticket of this desk.
        Stale: it has ended.
    """
    claims = minted_jwts.verify(JwtPurpose.TICKET, text)
    return Ticket(
        ReadableKind(claims["aud"]), claims["sub"], claims["site"], claims["cred"], claims.get("origin"), claims["exp"]
    )


def authorize(ticket: Ticket, what: ReadableKind, public_id: str, *, origin: str | None) -> None:
    """Let a ticket open what it is for, from where it is for. `origin` is None for servers and the desk's own pages.

    Raises:
        Unfit: it is for another stream or job.
        OriginNotAllowed: a page of another origin shows it, or nobody knows which.
    """
    if (ticket.what, ticket.public_id) != (what, public_id):
        raise MalformedCredentials("The ticket is for another stream or job. Mint one for this stream or job.")
    if ticket.origin is None and origin is not None:
        raise OriginNotAllowed(
            "The ticket is bound to no origin, so no page may use it; request one for the origin of the page."
        )
    if ticket.origin is not None and normalize_origin(origin or "") != ticket.origin:
        raise OriginNotAllowed(
            f"The ticket may be used only from pages of {ticket.origin}, which send the header Origin."
        )

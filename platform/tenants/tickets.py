"""Tickets: what a browser gets. Each reads one stream or one job of one site, from one origin, and starts nothing.

A ticket is no credential: no other address takes it for a proof. Whoever holds it may open what it names as often as
they like within its minutes (that is how a lost connection resumes); what is open by then may run to its end.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.conf import settings

from tenants import minted
from tenants.errors import OriginNotAllowed, Unfit, WiderThanProof
from tenants.limits import Scope, read_origin
from tenants.minted import Minted, Use
from tenants.origins import origin_for
from tenants.proof import Identity


class Readable(StrEnum):
    """What a ticket may be for: its audience (`aud`)."""

    STREAM = "stream"
    JOB = "job"


#: What it takes to read these without a ticket, or to mint one.
READING = {Readable.STREAM: Scope.STREAMS_READ, Readable.JOB: Scope.JOBS_READ}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket reads, and from where."""

    what: Readable
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


def mint(identity: Identity, what: Readable, public_id: str, *, origin: str | None = None, own: str = "") -> Minted:
    """Return a ticket for a stream or job of the identity's site. That it is the site's is for the caller to know.

    `origin` is that of the page which is to read; without it, what the proof itself is bound to.

    Raises:
        OriginNotAllowed: it is none of the site's origins.
        WiderThanProof: the proof is bound to another origin.
    """
    if identity.origin is not None and origin is not None and read_origin(origin) != read_origin(identity.origin):
        raise WiderThanProof("The token is bound to an origin, and so are its tickets: to the same.")
    claims = {
        "aud": what.value,
        "sub": public_id,
        "site": identity.site.public_id,
        "cred": identity.credential_id,
        "origin": origin_for(identity.origin if origin is None else origin, identity.site, own=own),
    }
    return minted.mint(Use.TICKET, claims, seconds=settings.TICKET_SECONDS)


def is_ticket(text: str) -> bool:
    """Say whether a text claims to be a ticket. It proves nothing."""
    return minted.is_minted(Use.TICKET, text)


def read(text: str) -> Ticket:
    """Return what a ticket says, once it is clear that it is ours and has not ended.

    Raises:
        NotProven: it is no ticket of this desk.
        Stale: it has ended.
    """
    claims = minted.read(Use.TICKET, text)
    return Ticket(
        Readable(claims["aud"]), claims["sub"], claims["site"], claims["cred"], claims.get("origin"), claims["exp"]
    )


def check(ticket: Ticket, what: Readable, public_id: str, *, origin: str | None) -> None:
    """Let a ticket open what it is for, from where it is for. `origin` is None for servers and the desk's own pages.

    Raises:
        Unfit: it is for another stream or job.
        OriginNotAllowed: a page of another origin shows it, or nobody knows which.
    """
    if (ticket.what, ticket.public_id) != (what, public_id):
        raise Unfit("The ticket is for another stream or job; each reads one.")
    if ticket.origin is None and origin is not None:
        raise OriginNotAllowed("The ticket names no origin, so no page may use it; ask for one that names the page's.")
    if ticket.origin is not None and read_origin(origin or "") != ticket.origin:
        raise OriginNotAllowed(f"The ticket is for pages of {ticket.origin} alone, which say so in Origin.")

"""Proofs on an event loop: who asks, without ever waiting for Postgres on the loop."""

import asyncio
import hashlib
from dataclasses import dataclass, replace

from core.signing import Hashed
from core.threads import DatabaseThreads
from tenants import tickets
from tenants.errors import NotProven, OriginNotAllowed
from tenants.limits import check_scope, read_origin
from tenants.lookups import with_lookups
from tenants.models import Site
from tenants.origins import allowed_origin
from tenants.proof import Presented, Proven, Signature, Token, check, find_proof, prove
from tenants.tickets import READING, Readable, Ticket

#: A body longer than this is hashed in a thread: a mebibyte takes the loop about a millisecond.
HASHED_HERE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Reader:
    """Who may read one stream or job: the holder of a ticket, or the site itself with a proof."""

    site: Site
    #: The one origin that ticket or token is bound to.
    origin: str | None
    ticket: Ticket | None = None
    #: None for a ticket.
    proven: Proven | None = None


async def prove_live(asked: Presented, threads: DatabaseThreads) -> Proven:
    """Return who asks. The nonce in it has yet to be used up.

    Raises:
        Unauthenticated: as `proof.check` does; and `Replayed` for the older form, whose signatures bind no address, so
            that they are used up in one place for all addresses, which is Postgres.
        OperationalError: it has to be asked for, and Postgres does not answer.
    """
    given = find_proof(asked.headers)
    if isinstance(given, Signature):
        if given.is_older:
            return Proven(await threads.run(prove, asked))
        asked = await _hashed(asked)
    return await with_lookups(lambda remembered: check(asked, remembered), threads)


async def prove_reader(
    asked: Presented, what: Readable, public_id: str, *, origin: str | None, threads: DatabaseThreads
) -> Reader:
    """Return who may read this stream or job: by its ticket, or by any proof with the scope for it.

    `origin` is that of the page that asks; None for servers and the desk's own pages. For a proof that is no ticket,
    address and origin have yet to be checked (`limits.check_place`), and the nonce to be used up.

    Raises:
        Unauthenticated: neither is proven, or the ticket is for something else.
        OriginNotAllowed: the ticket is for another origin.
        ScopeMissing: the proof is not for reading this.
    """
    given = find_proof(asked.headers)
    if isinstance(given, Token) and tickets.is_ticket(given.text):
        ticket = tickets.read(given.text)
        tickets.check(ticket, what, public_id, origin=origin)
        return Reader(await _site_of(ticket, origin, threads), ticket.origin, ticket=ticket)
    proven = await prove_live(asked, threads)
    check_scope(proven.identity, READING[what])
    return Reader(proven.identity.site, proven.identity.origin, proven=proven)


async def is_site_origin(origin: str, threads: DatabaseThreads) -> bool:
    """Say whether pages of this origin are those of any active site, for preflights and for answers to nobody."""
    asking = read_origin(origin)
    return await with_lookups(lambda remembered: remembered.knows_origin(asking), threads)


async def _site_of(ticket: Ticket, origin: str | None, threads: DatabaseThreads) -> Site:
    """Return the ticket's site, if it is active, the credential still live, and the origin still the site's."""
    site = await with_lookups(lambda remembered: remembered.find_voucher(ticket.credential_id), threads)
    if site is None or site.public_id != ticket.site:
        raise NotProven
    if origin is not None and allowed_origin(origin, site, ticket.origin) is None:
        raise OriginNotAllowed("This origin is not among the site's origins.")
    return site


async def _hashed(asked: Presented) -> Presented:
    """Hash a long body beside the loop."""
    body = asked.body
    if isinstance(body, Hashed) or len(body) <= HASHED_HERE_BYTES:
        return asked
    digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
    return replace(asked, body=Hashed(digest))

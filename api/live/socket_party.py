"""Who is at the other end of a WebSocket, and what it may do, asked for each message: proofs end, and are revoked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from api.errors import Draining
from api.live.asked import Asked
from api.live.desk import LiveDesk
from api.live.socket_words import Start
from api.live.who import Known, use_up
from core.ids import new_uuid, to_public
from tenants import tickets
from tenants.errors import NotProven, ScopeMissing
from tenants.limits import Scope, check_place, check_scope
from tenants.live_proof import prove_live, prove_reader
from tenants.lookups import with_lookups
from tenants.models import Site
from tenants.proof import Identity, Means, Token, find_proof
from tenants.tickets import READING, Readable

SIGNED = (Means.SIGNED_REQUEST, Means.OLDER_SIGNATURE)
#: Of these, one is enough to start a stream.
STARTING = (Scope.STREAMS_WRITE, Scope.CHAT_WRITE)


@dataclass(frozen=True, slots=True)
class Party:
    """A proof that held when the connection began."""

    #: The handshake, with the proof in its headers wherever it came from.
    asked: Asked
    site: Site
    #: None for a ticket, which starts nothing.
    identity: Identity | None

    async def starter(self, desk: LiveDesk) -> Known:
        """Return who starts a stream. Raises `Draining`, and what `_identity` raises."""
        if desk.is_draining:
            raise Draining
        identity = await self._identity(desk)
        if identity.scopes is not None and not identity.scopes.intersection(STARTING):
            check_scope(identity, STARTING[0])
        return Known(identity, None)

    async def canceler(self, desk: LiveDesk, *, is_own: bool) -> Identity:
        """Return who cancels a stream. Who started it over this connection needs no further scope."""
        identity = await self._identity(desk)
        if not is_own:
            check_scope(identity, Scope.STREAMS_WRITE)
        return identity

    async def reader(self, desk: LiveDesk, what: Readable, public_id: str) -> "Party":
        """Return who reads a stream or job, as of now. Raises `Unauthenticated` and `Forbidden`."""
        if self.identity is None:
            return await _read_by_ticket(desk, self.asked, what, public_id)
        identity = await self._identity(desk)
        check_scope(identity, READING[what])
        return replace(self, site=identity.site, identity=identity)

    def asking(self, start: Start) -> Asked:
        """Return a start as the request that would ask for the same by HTTP."""
        headers = {"x-nightdesk-continue": "true"} if start.continue_ else {}
        if start.idempotency_key is not None:
            headers["idempotency-key"] = start.idempotency_key
        return replace(
            self.asked,
            method="POST",
            path="/v1/streams",
            headers=headers,
            request_id=to_public("req", new_uuid()),
            body=bytes(start.body),
        )

    async def _identity(self, desk: LiveDesk) -> Identity:
        """Return who this is, if the proof still holds. Raises `Unauthenticated` and `Forbidden`."""
        if self.identity is None:
            raise ScopeMissing("A ticket reads its stream or job, and does nothing else.")
        identity = self.identity
        if identity.means in SIGNED:
            # Its time is over soon; the secret that it was signed with may last.
            await _check_credential(desk, identity)
        else:
            identity = (await prove_live(self.asked.presented(), desk.threads)).identity
        check_place(identity, self.asked.address, self.asked.origin)
        return identity


async def meet(desk: LiveDesk, asked: Asked, proof: Mapping[str, str]) -> Party:
    """Return who is at the other end, by the handshake's headers or by a proof that came otherwise.

    Raises `Unauthenticated` and `Forbidden`.
    """
    asked = replace(asked, headers={**asked.headers, **proof})
    given = find_proof(asked.headers)
    if isinstance(given, Token) and tickets.is_ticket(given.text):
        ticket = tickets.read(given.text)
        return await _read_by_ticket(desk, asked, ticket.what, ticket.public_id)
    proven = await prove_live(asked.presented(), desk.threads)
    check_place(proven.identity, asked.address, asked.origin)
    await use_up(desk, Known(proven.identity, proven.nonce))
    return Party(asked, proven.identity.site, proven.identity)


async def _read_by_ticket(desk: LiveDesk, asked: Asked, what: Readable, public_id: str) -> Party:
    reader = await prove_reader(asked.presented(), what, public_id, origin=asked.origin, threads=desk.threads)
    return Party(asked, reader.site, None)


async def _check_credential(desk: LiveDesk, identity: Identity) -> None:
    site = await with_lookups(lambda remembered: remembered.find_voucher(identity.credential_id), desk.threads)
    if site is None or site.public_id != identity.site.public_id:
        raise NotProven

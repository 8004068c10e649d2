"""Who asks live, from where, and for what: every check that needs no body."""

from dataclasses import dataclass

from api.errors import Draining
from api.live.answer import Course
from api.live.desk import LiveDesk, live_desk
from streams.entries import About
from streams.errors import StreamUnknown
from tenants import proof
from tenants.limits import Scope, check_place, check_scope
from tenants.live_proof import prove_live
from tenants.origins import allowed_origin
from tenants.proof import Identity


@dataclass(frozen=True, slots=True)
class Known:
    """Who asks. The nonce is used up with the admission, or by `use_up`."""

    identity: Identity
    nonce: bytes | None

    @property
    def site(self) -> str:
        return self.identity.site.public_id


async def enter(course: Course, scope: Scope | None) -> tuple[LiveDesk, Known]:
    """Return the desk and who asks, once it is clear that they may from here, and for this.

    Raises:
        Draining: this process is about to stop.
        Unauthenticated: nobody is proven.
        Forbidden: the address, the origin or the scope is not allowed.
    """
    desk, asked = await live_desk(), course.asked
    if desk.is_draining:
        raise Draining
    proven = await prove_live(asked.presented(), desk.threads)
    course.origin = allowed_origin(asked.headers.get("origin"), proven.identity.site, proven.identity.origin)
    check_place(proven.identity, asked.address, asked.origin)
    if scope is not None:
        check_scope(proven.identity, scope)
    return desk, Known(proven.identity, proven.nonce)


def check_own(about: About, identity: Identity | None) -> None:
    """Let a narrow token read and cancel what was begun with it, or for its user, and no other stream of its site.

    Raises:
        StreamUnknown: for the token there is none of that id.
    """
    if identity is None or identity.token_id is None or identity.token_id == about.token:
        return
    if identity.user is None or identity.user != about.user:
        raise StreamUnknown(f"There is no stream {about.id}.")


async def use_up(desk: LiveDesk, known: Known) -> None:
    """Let a signed request in once that needs no admission. Raises `Replayed`."""
    if known.nonce is not None:
        await desk.threads.run(proof.use_up, known.identity.site, known.nonce)

"""Narrow tokens: JWTs that the desk mints for a site's trusted front ends, no wider than the proof they are asked with.

They carry the claims that a site's own JWT may (`scope`, `model`, `max_tokens`, `origin`), and `proof` reads them the
same way. The site's secret stays on its server, and whoever reads a token can make no other of it.
"""

from dataclasses import dataclass, replace

import structlog

from core.ids import new_uuid, to_public
from tenants import minted
from tenants.errors import ScopeMissing, WiderThanProof
from tenants.limits import Scope, check_model, check_scope, read_origin
from tenants.minted import Minted, Use
from tenants.origins import origin_for
from tenants.proof import Identity, Means

log = structlog.get_logger(__name__)

ID_PREFIX = "tok"
AUDIENCE = "desk"
LONGEST_SECONDS = 3600
#: What a token may be for: all but to mint others.
GRANTABLE = tuple(scope for scope in Scope if scope is not Scope.TOKENS_WRITE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a token is to be for. None: as wide as the proof it is asked with."""

    scopes: frozenset[Scope]
    seconds: int
    model: str | None = None
    max_tokens: int | None = None
    origin: str | None = None
    #: Who it is for, in the front end's own words: tokens of one user share what they began.
    user: str | None = None


@dataclass(frozen=True, slots=True)
class NarrowToken:
    """A token, and what it turned out to be for."""

    id: str
    minted: Minted
    wanted: Wanted


def mint(identity: Identity, wanted: Wanted, *, own: str = "") -> NarrowToken:
    """Mint a token for the identity's site. `own` is the scheme and host that the desk was asked at.

    Raises:
        ScopeMissing: it is asked for with a narrow token, or with a JWT that may not.
        WiderThanProof: it would be wider than the JWT it is asked for with.
        ModelNotAllowed: the site, or the JWT, may not use the model.
        OriginNotAllowed: the origin is none of the site's.
    """
    check_scope(identity, Scope.TOKENS_WRITE)
    if identity.means is Means.TOKEN:
        raise ScopeMissing("A narrow token mints no other.")
    fitting = _fit(identity, wanted)
    fitting = replace(fitting, origin=origin_for(fitting.origin, identity.site, own=own))
    if fitting.model is not None:
        check_model(identity.site, fitting.model, identity.grant.only_model)
    token_id = to_public(ID_PREFIX, new_uuid())
    claims = {
        "aud": AUDIENCE,
        "sub": identity.site.slug,
        "jti": token_id,
        "site": identity.site.public_id,
        "cred": identity.credential_id,
        "scope": " ".join(sorted(fitting.scopes)),
        "model": fitting.model,
        "max_tokens": fitting.max_tokens,
        "origin": fitting.origin,
        "user": fitting.user,
    }
    text = minted.mint(Use.TOKEN, claims, seconds=wanted.seconds)
    log.info("token_minted", minted=token_id, scope=claims["scope"], seconds=wanted.seconds)
    return NarrowToken(token_id, text, fitting)


def _fit(identity: Identity, wanted: Wanted) -> Wanted:
    """Fill in what the proof is narrowed to. Raises `WiderThanProof` where more is wanted."""
    if identity.scopes is not None and not wanted.scopes <= identity.scopes:
        raise WiderThanProof("The token would have scopes that the JWT you prove yourself with has not.")
    most = identity.grant.max_tokens
    if most is not None and (wanted.max_tokens or 0) > most:
        raise WiderThanProof(f"The JWT you prove yourself with has max_tokens {most}; ask for no more.")
    origin = identity.origin if wanted.origin is None else wanted.origin
    if identity.origin is not None and read_origin(origin or "") != read_origin(identity.origin):
        raise WiderThanProof("The JWT you prove yourself with is for another origin.")
    return replace(
        wanted,
        model=wanted.model or identity.grant.only_model,
        max_tokens=wanted.max_tokens or most,
        origin=origin,
    )

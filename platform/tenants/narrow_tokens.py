"""Narrow tokens: JWTs that the desk mints for a site's trusted front ends, no wider than the proof they are asked with.

They carry the claims that a site's own JWT may (`scope`, `model`, `max_tokens`, `origin`), and `proof` reads them the
same way. The site's secret stays on its server, and whoever reads a token can make no other of it.
"""

from dataclasses import dataclass, replace

import structlog

from core.ids import new_uuid, to_public
from tenants import minted_jwts
from tenants.access import TokenScope, check_model, check_scope, normalize_origin, origin_to_bind
from tenants.authentication import AuthMethod, Identity
from tenants.errors import InsufficientScope, ScopeExceedsGrant
from tenants.minted_jwts import JwtPurpose, MintedJwt

log = structlog.get_logger(__name__)

ID_PREFIX = "tok"
AUDIENCE = "desk"
MAX_LIFETIME_SECONDS = 3600
#: What a token may be for: all but to mint others.
GRANTABLE_SCOPES = tuple(scope for scope in TokenScope if scope is not TokenScope.TOKENS_WRITE)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a token is to be for. None: as wide as the proof it is asked with."""

    scopes: frozenset[TokenScope]
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
    minted: MintedJwt
    wanted: TokenRequest


def mint(identity: Identity, wanted: TokenRequest, *, own_origin: str = "") -> NarrowToken:
    """Mint a token for the identity's site. `own_origin` is the scheme and host that the desk was asked at.

    Raises:
        ScopeMissing: it is asked for with a narrow token, or with a JWT that may not.
        WiderThanProof: it would be wider than the JWT it is asked for with.
        ModelNotAllowed: the site, or the JWT, may not use the model.
        OriginNotAllowed: the origin is none of the site's.
    """
    check_scope(identity, TokenScope.TOKENS_WRITE)
    if identity.auth_method is AuthMethod.TOKEN:
        raise InsufficientScope("A narrow token cannot mint other tokens.")
    granted = _restrict_to_grant(identity, wanted)
    granted = replace(granted, origin=origin_to_bind(granted.origin, identity.site, own_origin=own_origin))
    if granted.model is not None:
        check_model(identity.site, granted.model, identity.grant.only_model)
    token_id = to_public(ID_PREFIX, new_uuid())
    claims = {
        "aud": AUDIENCE,
        "sub": identity.site.slug,
        "jti": token_id,
        "site": identity.site.public_id,
        "cred": identity.credential_id,
        "scope": " ".join(sorted(granted.scopes)),
        "model": granted.model,
        "max_tokens": granted.max_tokens,
        "origin": granted.origin,
        "user": granted.user,
    }
    text = minted_jwts.mint(JwtPurpose.TOKEN, claims, seconds=wanted.seconds)
    log.info("token_minted", minted=token_id, scope=claims["scope"], seconds=wanted.seconds)
    return NarrowToken(token_id, text, granted)


def _restrict_to_grant(identity: Identity, wanted: TokenRequest) -> TokenRequest:
    """Fill in what the proof is narrowed to. Raises `ScopeExceedsGrant` where more is wanted."""
    if identity.scopes is not None and not wanted.scopes <= identity.scopes:
        raise ScopeExceedsGrant("The token would have scopes that your JWT does not grant.")
    most = identity.grant.max_tokens
    if most is not None and (wanted.max_tokens or 0) > most:
        raise ScopeExceedsGrant(f"Your JWT allows at most {most} max_tokens; request no more.")
    origin = identity.origin if wanted.origin is None else wanted.origin
    if identity.origin is not None and normalize_origin(origin or "") != normalize_origin(identity.origin):
        raise ScopeExceedsGrant("Your JWT is bound to another origin.")
    return replace(
        wanted,
        model=wanted.model or identity.grant.only_model,
        max_tokens=wanted.max_tokens or most,
        origin=origin,
    )

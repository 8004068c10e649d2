"""Narrow tokens (least privilege): JWTs that Nightdesk mints for a site's trusted front ends.

A token never allows more than the credential that requested it. It carries the claims that a site's own JWT may
(`scope`, `model`, `max_tokens`, `origin`), and `authentication` reads them the same way. The site's secret stays on its
server, and a token cannot mint another.
"""

from dataclasses import dataclass, replace

import structlog

from core.ids import new_uuid, to_public
from tenants import minted_jwts
from tenants.access import TokenScope, check_grant, check_model, check_scope, normalize_origin, origin_to_bind
from tenants.authentication import AuthMethod, Identity
from tenants.errors import InsufficientScope, ScopeExceedsGrant
from tenants.minted_jwts import JwtPurpose, MintedJwt

log = structlog.get_logger(__name__)

ID_PREFIX = "tok"
AUDIENCE = "desk"
MAX_LIFETIME_SECONDS = 3600
#: The scopes of a token: all except minting others.
GRANTABLE_SCOPES = tuple(scope for scope in TokenScope if scope is not TokenScope.TOKENS_WRITE)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The requested restrictions of a token. None: as the credential that requests it."""

    scopes: frozenset[TokenScope]
    seconds: int
    model: str | None = None
    max_tokens: int | None = None
    origin: str | None = None
    #: The user it is for, as the front end names them: tokens of one user share the streams that they started.
    user: str | None = None


@dataclass(frozen=True, slots=True)
class NarrowToken:
    """A token with the restrictions that were granted."""

    id: str
    minted: MintedJwt
    granted: TokenRequest


def mint(identity: Identity, requested: TokenRequest, *, own_origin: str = "") -> NarrowToken:
    """Mint a token for the identity's site. `own_origin` is the scheme and host that the request was sent to.

    Raises:
        InsufficientScope: it is requested with a narrow token, or with a JWT that lacks the scope.
        ScopeExceedsGrant: it would allow more than the JWT that requests it.
        ModelNotAllowed: the site, or the JWT, may not use the model; or the JWT has an unknown restriction.
        OriginNotAllowed: the origin is not one of the site's.
    """
    check_scope(identity, TokenScope.TOKENS_WRITE)
    if identity.auth_method is AuthMethod.TOKEN:
        raise InsufficientScope("A narrow token cannot mint other tokens.")
    # A token could not carry a restriction that this version does not know.
    check_grant(identity.grant)
    granted = _restrict_to_grant(identity, requested)
    granted = replace(granted, origin=origin_to_bind(granted.origin, identity.site, own_origin=own_origin))
    if granted.model is not None:
        check_model(identity.site, identity.grant, granted.model)
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
    text = minted_jwts.mint(JwtPurpose.TOKEN, claims, seconds=requested.seconds)
    log.info("token_minted", minted=token_id, scope=claims["scope"], seconds=requested.seconds)
    return NarrowToken(token_id, text, granted)


def _restrict_to_grant(identity: Identity, requested: TokenRequest) -> TokenRequest:
    """Add the restrictions of the caller's own credential. Raises `ScopeExceedsGrant` if the request exceeds them."""
    if identity.scopes is not None and not requested.scopes <= identity.scopes:
        raise ScopeExceedsGrant("The token would have scopes that your JWT does not grant.")
    max_tokens = identity.grant.max_tokens
    if max_tokens is not None and (requested.max_tokens or 0) > max_tokens:
        raise ScopeExceedsGrant(f"Your JWT allows at max_tokens {max_tokens} max_tokens; request no more.")
    origin = identity.origin if requested.origin is None else requested.origin
    if identity.origin is not None and normalize_origin(origin or "") != normalize_origin(identity.origin):
        raise ScopeExceedsGrant("Your JWT is bound to another origin.")
    return replace(
        requested,
        model=requested.model or identity.grant.only_model,
        max_tokens=requested.max_tokens or max_tokens,
        origin=origin,
    )

"""A narrow token has the requested restrictions, and allows no more than the credential that requested it."""

import dataclasses
from typing import Any

import pytest

from tenants import minted_jwts, narrow_tokens
from tenants.access import TokenScope
from tenants.authentication import AuthMethod, Identity
from tenants.errors import InsufficientScope, ModelNotAllowed, OriginNotAllowed, ScopeExceedsGrant, TenantError
from tenants.grant import Grant
from tenants.minted_jwts import JwtPurpose
from tenants.models import Site
from tenants.narrow_tokens import GRANTABLE_SCOPES, TokenRequest

PAGE, SHOP = "https://bakery.test", "https://shop.bakery.test"
SITE = Site(slug="bakery", name="Bakery", origins=[PAGE, SHOP], allowed_models=["gpt-5", "gpt-5-mini"])
CHAT = TokenRequest(frozenset({TokenScope.CHAT_WRITE}), 60)


def identity(means: AuthMethod = AuthMethod.API_KEY, **narrow: Any) -> Identity:
    return Identity(SITE, means, "key_1", **narrow)


def token_request(**changes: Any) -> TokenRequest:
    return dataclasses.replace(CHAT, **changes)


def test_a_token_carries_the_requested_claims() -> None:
    token = narrow_tokens.mint(identity(), token_request(model="gpt-5", max_tokens=9, origin=PAGE))

    claims = dict(minted_jwts.verify(JwtPurpose.TOKEN, token.minted.text))
    assert claims.pop("exp") - claims.pop("iat") == 60
    assert claims == {
        "aud": "desk",
        "sub": "bakery",
        "jti": token.id,
        "site": SITE.public_id,
        "cred": "key_1",
        "scope": "chat:write",
        "model": "gpt-5",
        "max_tokens": 9,
        "origin": PAGE,
    }


def test_no_token_may_mint_others() -> None:
    assert set(TokenScope) - set(GRANTABLE_SCOPES) == {TokenScope.TOKENS_WRITE}
    for scopes in (None, frozenset(TokenScope), frozenset(GRANTABLE_SCOPES)):
        with pytest.raises(InsufficientScope):
            narrow_tokens.mint(identity(AuthMethod.TOKEN, scopes=scopes), CHAT)


@pytest.mark.parametrize(
    ("narrow", "changes", "error"),
    [
        ({"scopes": frozenset({"chat:write"})}, {}, InsufficientScope),
        ({"scopes": frozenset()}, {}, InsufficientScope),
        ({"scopes": frozenset({"tokens:write"})}, {}, ScopeExceedsGrant),
        ({"scopes": frozenset({"tokens:write", "jobs:read"})}, {}, ScopeExceedsGrant),
        ({"grant": Grant(max_tokens=10)}, {"max_tokens": 11}, ScopeExceedsGrant),
        ({"origin": PAGE}, {"origin": SHOP}, ScopeExceedsGrant),
        ({"grant": Grant("gpt-5")}, {"model": "gpt-5-mini"}, ModelNotAllowed),
        ({"grant": Grant(unknown=(("max_budget", 5),))}, {}, ModelNotAllowed),
        ({}, {"model": "gpt-6"}, ModelNotAllowed),
        ({}, {"origin": "https://evil.test"}, OriginNotAllowed),
        ({}, {"origin": "null"}, OriginNotAllowed),
        ({}, {"origin": ""}, OriginNotAllowed),
        ({"origin": PAGE}, {"origin": ""}, ScopeExceedsGrant),
    ],
)
def test_a_token_allows_no_more_than_the_credential_that_requests_it(
    narrow: dict[str, Any], changes: dict[str, Any], error: type[TenantError]
) -> None:
    with pytest.raises(error):
        narrow_tokens.mint(identity(AuthMethod.JWT, **narrow), token_request(**changes))


def test_unrequested_restrictions_are_those_of_the_credential() -> None:
    narrow = {"grant": Grant("gpt-5", 10), "origin": PAGE, "scopes": frozenset({"tokens:write", "chat:write"})}

    token = narrow_tokens.mint(identity(AuthMethod.JWT, **narrow), CHAT)

    claims = minted_jwts.verify(JwtPurpose.TOKEN, token.minted.text)
    assert {name: claims[name] for name in ("model", "max_tokens", "origin", "scope")} == {
        "model": "gpt-5",
        "max_tokens": 10,
        "origin": PAGE,
        "scope": "chat:write",
    }
    assert (token.granted.model, token.granted.max_tokens, token.granted.origin) == ("gpt-5", 10, PAGE)

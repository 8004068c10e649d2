"""A narrow token is what was asked for, and no wider than the proof that it was asked with."""

import dataclasses
from typing import Any

import pytest

from tenants import minted, tokens
from tenants.errors import ModelNotAllowed, OriginNotAllowed, ScopeMissing, TenantError, WiderThanProof
from tenants.grant import Grant
from tenants.limits import Scope
from tenants.minted import Use
from tenants.models import Site
from tenants.proof import Identity, Means
from tenants.tokens import GRANTABLE, Wanted

PAGE, SHOP = "https://bakery.test", "https://shop.bakery.test"
SITE = Site(slug="bakery", name="Bakery", origins=[PAGE, SHOP], allowed_models=["gpt-5", "gpt-5-mini"])
CHAT = Wanted(frozenset({Scope.CHAT_WRITE}), 60)


def identity(means: Means = Means.API_KEY, **narrow: Any) -> Identity:
    return Identity(SITE, means, "key_1", **narrow)


def wanted(**changes: Any) -> Wanted:
    return dataclasses.replace(CHAT, **changes)


def test_a_token_carries_what_was_asked_for() -> None:
    token = tokens.mint(identity(), wanted(model="gpt-5", max_tokens=9, origin=PAGE))

    claims = dict(minted.read(Use.TOKEN, token.minted.text))
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
    assert set(Scope) - set(GRANTABLE) == {Scope.TOKENS_WRITE}
    for scopes in (None, frozenset(Scope), frozenset(GRANTABLE)):
        with pytest.raises(ScopeMissing):
            tokens.mint(identity(Means.TOKEN, scopes=scopes), CHAT)


@pytest.mark.parametrize(
    ("narrow", "changes", "error"),
    [
        ({"scopes": frozenset({"chat:write"})}, {}, ScopeMissing),
        ({"scopes": frozenset()}, {}, ScopeMissing),
        ({"scopes": frozenset({"tokens:write"})}, {}, WiderThanProof),
        ({"scopes": frozenset({"tokens:write", "jobs:read"})}, {}, WiderThanProof),
        ({"grant": Grant(max_tokens=10)}, {"max_tokens": 11}, WiderThanProof),
        ({"origin": PAGE}, {"origin": SHOP}, WiderThanProof),
        ({"grant": Grant("gpt-5")}, {"model": "gpt-5-mini"}, ModelNotAllowed),
        ({}, {"model": "gpt-6"}, ModelNotAllowed),
        ({}, {"origin": "https://evil.test"}, OriginNotAllowed),
        ({}, {"origin": "null"}, OriginNotAllowed),
        ({}, {"origin": ""}, OriginNotAllowed),
        ({"origin": PAGE}, {"origin": ""}, WiderThanProof),
    ],
)
def test_a_token_is_not_wider_than_the_proof(
    narrow: dict[str, Any], changes: dict[str, Any], error: type[TenantError]
) -> None:
    with pytest.raises(error):
        tokens.mint(identity(Means.JWT, **narrow), wanted(**changes))


def test_what_was_not_asked_for_is_as_narrow_as_the_proof() -> None:
    narrow = {"grant": Grant("gpt-5", 10), "origin": PAGE, "scopes": frozenset({"tokens:write", "chat:write"})}

    token = tokens.mint(identity(Means.JWT, **narrow), CHAT)

    claims = minted.read(Use.TOKEN, token.minted.text)
    assert {name: claims[name] for name in ("model", "max_tokens", "origin", "scope")} == {
        "model": "gpt-5",
        "max_tokens": 10,
        "origin": PAGE,
        "scope": "chat:write",
    }
    assert (token.wanted.model, token.wanted.max_tokens, token.wanted.origin) == ("gpt-5", 10, PAGE)

"""Access of an authenticated caller: network, origin, model and scope."""

import pytest

from tenants.access import (
    TokenScope,
    check_address,
    check_model,
    check_network_and_origin,
    check_origin,
    check_scope,
    client_address,
    echoed_origin,
    is_model_allowed,
    origin_to_bind,
)
from tenants.authentication import AuthMethod, Identity
from tenants.errors import AddressNotAllowed, InsufficientScope, ModelNotAllowed, OriginNotAllowed
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site


def site(**fields: object) -> Site:
    return Site(slug="bakery", name="Bakery", **fields)


def identity(origins: list[str] | None = None, **narrow: object) -> Identity:
    return Identity(site(origins=origins or []), AuthMethod.JWT, "key_1", **narrow)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "trusted", "address"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.5", 0, "192.0.2.1"),
        ("10.0.0.1", "203.0.113.5", 1, "203.0.113.5"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.5", 1, "203.0.113.5"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.5, 10.0.0.2", 2, "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5", 2, "203.0.113.5"),
        ("10.0.0.1", "", 1, "10.0.0.1"),
        ("10.0.0.1", " , ", 1, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5:4711", 1, "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("10.0.0.1", "2001:DB8::0:1", 1, "2001:db8::1"),
        ("::ffff:192.0.2.1", "", 0, "192.0.2.1"),
        ("10.0.0.1", "unknown", 1, ""),
        ("", "", 0, ""),
    ],
)
def test_the_client_address_is_the_last_hop_that_is_not_our_proxy(
    peer: str, forwarded_for: str, trusted: int, address: str
) -> None:
    assert client_address(peer, forwarded_for, trusted) == address


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        ([], "203.0.113.5"),
        ([], ""),
        (["203.0.113.5"], "203.0.113.5"),
        (["10.0.0.0/8", "203.0.113.0/24"], "203.0.113.5"),
        (["203.0.113.77/24"], "203.0.113.5"),
        (["2001:db8::/32"], "2001:db8:1::7"),
        (["203.0.113.0/24"], "::ffff:203.0.113.5"),
        (["nonsense", "203.0.113.0/24"], "203.0.113.5"),
    ],
)
def test_addresses_on_the_allowlist_are_allowed(networks: list[str], address: str) -> None:
    check_address(site(ip_allowlist=networks), address)


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["203.0.113.0/24"], "203.0.114.5"),
        (["203.0.113.0/24"], "2001:db8::1"),
        (["2001:db8::/32"], "203.0.113.5"),
        (["203.0.113.0/24"], ""),
        (["203.0.113.0/24"], "nonsense"),
        (["nonsense"], "203.0.113.5"),
    ],
)
def test_other_addresses_are_refused(networks: list[str], address: str) -> None:
    with pytest.raises(AddressNotAllowed):
        check_address(site(ip_allowlist=networks), address)


@pytest.mark.parametrize(
    ("means", "origin", "accepted"),
    [
        (AuthMethod.TOKEN, "https://bakery.test", True),
        (AuthMethod.TOKEN, None, False),
        (AuthMethod.JWT, "https://bakery.test", False),
        (AuthMethod.API_KEY, None, False),
    ],
)
def test_only_minted_tokens_bound_to_an_origin_skip_the_allowlist(
    means: AuthMethod, origin: str | None, accepted: bool
) -> None:
    bakery = site(ip_allowlist=["203.0.113.0/24"], origins=["https://bakery.test"])
    asking = Identity(bakery, means, "key_1", origin=origin)

    check_network_and_origin(asking, "203.0.113.5", origin)
    if accepted:
        check_network_and_origin(asking, "198.51.100.7", origin)
    else:
        with pytest.raises(AddressNotAllowed):
            check_network_and_origin(asking, "198.51.100.7", origin)


def test_the_network_check_includes_the_origin() -> None:
    with pytest.raises(OriginNotAllowed):
        check_network_and_origin(identity(["https://bakery.test"]), "203.0.113.5", "https://florist.test")


def test_servers_send_no_origin_and_are_allowed() -> None:
    check_origin(identity(), None)


@pytest.mark.parametrize("origin", ["https://bakery.test", "https://Bakery.test:443", "HTTPS://bakery.test"])
def test_a_browser_on_the_sites_origin_is_allowed(origin: str) -> None:
    check_origin(identity(["https://other.test", "https://bakery.test/"]), origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.test",
        "http://bakery.test",
        "https://bakery.test:8443",
        "https://bakery.test.evil.test",
        "null",
        "",
        "file://",
        "https://[",
        "https://bakery.test:port",
    ],
)
def test_a_browser_on_another_origin_is_forbidden(origin: str) -> None:
    with pytest.raises(OriginNotAllowed):
        check_origin(identity(["https://bakery.test", "null", ""]), origin)


@pytest.mark.parametrize(
    ("origin", "accepted"), [("https://a.test", True), ("https://b.test", False), (None, False), ("", False)]
)
def test_a_token_bound_to_an_origin_works_there_only(origin: str | None, accepted: bool) -> None:
    bound = identity(["https://a.test", "https://b.test"], origin="https://a.test")
    if accepted:
        check_origin(bound, origin)
    else:
        with pytest.raises(OriginNotAllowed):
            check_origin(bound, origin)


@pytest.mark.parametrize(
    ("allowed", "grant", "accepted"),
    [
        ([], UNRESTRICTED, True),
        (["gpt-5"], UNRESTRICTED, True),
        (["gpt-4o"], UNRESTRICTED, False),
        ([], Grant("gpt-5"), True),
        ([], Grant("gpt-4o"), False),
        (["gpt-4o"], Grant("gpt-5"), False),
    ],
)
def test_a_model_must_be_allowed_by_the_site_and_by_the_grant(allowed: list[str], grant: Grant, accepted: bool) -> None:
    assert is_model_allowed(site(allowed_models=allowed), grant, "gpt-5") is accepted
    if accepted:
        check_model(site(allowed_models=allowed), grant, "gpt-5")
    else:
        with pytest.raises(ModelNotAllowed, match="gpt-5"):
            check_model(site(allowed_models=allowed), grant, "gpt-5")


def test_no_model_is_allowed_under_a_restriction_of_a_newer_version() -> None:
    newer = Grant("gpt-5", unknown=(("max_budget", 5),))

    assert not is_model_allowed(site(), newer, "gpt-5")
    with pytest.raises(ModelNotAllowed, match="does not know"):
        check_model(site(), newer, "gpt-5")


@pytest.mark.parametrize("scope", list(TokenScope))
def test_without_a_scope_claim_everything_is_allowed_and_with_one_only_its_scopes(scope: TokenScope) -> None:
    check_scope(identity(), scope)
    check_scope(identity(scopes=frozenset({scope.value})), scope)
    with pytest.raises(InsufficientScope, match=scope.value):
        check_scope(identity(scopes=frozenset({"something:else"})), scope)


# Origins that may read, and origins to bind to

PAGE, SHOP = "https://bakery.test", "https://shop.bakery.test:8443"
SITE = Site(slug="bakery", name="Bakery", origins=[PAGE, SHOP])


@pytest.mark.parametrize(
    ("origin", "bound", "allowed"),
    [
        (PAGE, None, True),
        (SHOP, None, True),
        (PAGE, PAGE, True),
        (PAGE, f"{PAGE}:443/", True),
        (PAGE, SHOP, False),
        ("http://bakery.test", None, False),
        ("https://bakery.test:8443", None, False),
        ("https://shop.bakery.test", None, False),
        ("https://evil.test", None, False),
        ("https://evil.test", "https://evil.test", False),
        ("null", None, False),
        ("null", "null", False),
        ("", None, False),
        (None, None, False),
        (None, PAGE, False),
        ("*", None, False),
        ("https://bakery.test, https://evil.test", None, False),
        ("chrome-extension://bakery.test", None, False),
    ],
)
def test_a_response_may_be_read_by_pages_of_the_site_that_the_credential_allows(
    origin: str | None, bound: str | None, allowed: bool
) -> None:
    assert echoed_origin(origin, SITE, bound) == (origin if allowed else None)


def test_a_site_without_origins_allows_no_page() -> None:
    assert echoed_origin(PAGE, Site(slug="bakery"), None) is None


@pytest.mark.parametrize(
    ("requested", "own", "bound"),
    [
        (None, "", None),
        (PAGE, "", PAGE),
        ("https://BAKERY.test:443/page", "", PAGE),
        (SHOP, "", SHOP),
        ("https://desk.test", "https://desk.test", None),
    ],
)
def test_an_origin_to_bind_is_normalized(requested: str | None, own: str, bound: str | None) -> None:
    assert origin_to_bind(requested, SITE, own_origin=own) == bound


@pytest.mark.parametrize("requested", ["", "null", "*", "https://evil.test", "bakery.test", "//bakery.test"])
def test_an_origin_of_no_site_cannot_be_bound(requested: str) -> None:
    with pytest.raises(OriginNotAllowed):
        origin_to_bind(requested, SITE)

"""Whose pages may read an answer, and what a preflight is told."""

import pytest

from tenants.errors import OriginNotAllowed
from tenants.models import Site
from tenants.origins import EXPOSED, Preflight, allowed_origin, answer_headers, origin_for, preflight_answer

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
def test_an_answer_may_be_read_by_the_sites_pages_that_the_proof_is_for(
    origin: str | None, bound: str | None, allowed: bool
) -> None:
    assert allowed_origin(origin, SITE, bound) == (origin if allowed else None)


def test_a_site_without_origins_has_no_pages() -> None:
    assert allowed_origin(PAGE, Site(slug="bakery"), None) is None


@pytest.mark.parametrize(
    ("wanted", "own", "bound"),
    [
        (None, "", None),
        (PAGE, "", PAGE),
        ("https://BAKERY.test:443/page", "", PAGE),
        (SHOP, "", SHOP),
        ("https://desk.test", "https://desk.test", None),
    ],
)
def test_an_origin_is_bound_as_we_write_it(wanted: str | None, own: str, bound: str | None) -> None:
    assert origin_for(wanted, SITE, own=own) == bound


@pytest.mark.parametrize("wanted", ["", "null", "*", "https://evil.test", "bakery.test", "//bakery.test"])
def test_no_other_origin_is_bound(wanted: str) -> None:
    with pytest.raises(OriginNotAllowed):
        origin_for(wanted, SITE)


def test_an_answer_always_depends_on_who_asks_and_never_takes_cookies() -> None:
    for allowed in (None, PAGE):
        headers = dict(answer_headers(allowed))
        assert headers[b"vary"] == b"Origin"
        assert b"access-control-allow-credentials" not in headers
        assert headers.get(b"access-control-allow-origin") == (allowed.encode() if allowed else None)


@pytest.mark.parametrize(
    "name",
    [
        "X-Request-ID",
        "Retry-After",
        "X-Cache",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "anthropic-ratelimit-requests-limit",
        "Server-Timing",
        "X-Nightdesk-Overhead-Ms",
    ],
)
def test_a_page_may_read_what_stands_in_the_headers(name: str) -> None:
    assert name in EXPOSED
    assert name in dict(answer_headers(PAGE))[b"access-control-expose-headers"].decode().split(", ")


@pytest.mark.parametrize(
    ("asked", "known", "status"),
    [
        (Preflight(PAGE, "POST"), True, 204),
        (Preflight(PAGE, "GET"), True, 204),
        (Preflight(PAGE, "DELETE"), True, 204),
        (Preflight(PAGE, "PUT"), True, 403),
        (Preflight(PAGE, "post"), True, 403),
        (Preflight(PAGE, None), True, 403),
        (Preflight(None, "POST"), True, 403),
        (Preflight("https://evil.test", "POST"), False, 403),
    ],
)
def test_a_preflight_is_granted_to_pages_of_sites_for_what_there_is(asked: Preflight, known: bool, status: int) -> None:
    found, headers = preflight_answer(asked, is_known=known)

    assert found == status
    assert b"Origin" in dict(headers)[b"vary"]
    assert b"access-control-allow-credentials" not in dict(headers)
    assert (b"access-control-allow-origin" in dict(headers)) is (status == 204)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("", ""),
        ("authorization,content-type", "authorization, content-type"),
        ("Authorization, Last-Event-ID", "authorization, last-event-id"),
        ("x-stainless-os,x-stainless-retry-count", "x-stainless-os, x-stainless-retry-count"),
        ("x-signature,x-site-id,cookie", ""),
        ("authorization\r\nset-cookie: a=b", ""),
        ("x-stainless-\r\n", ""),
        (",".join(f"x-stainless-{n}" for n in range(10_000)), None),
    ],
)
def test_a_preflight_grants_those_headers_that_we_take(asked: str, granted: str | None) -> None:
    _, headers = preflight_answer(Preflight(PAGE, "POST", asked), is_known=True)

    found = dict(headers)[b"access-control-allow-headers"].decode()
    assert found == granted or (granted is None and len(found) < 1000)

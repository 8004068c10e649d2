"""What browsers on pages of other origins are told by the resources."""

import pytest
from django.http import HttpResponse

from tenants import cached_lookups
from tenants.credentials import NewSite
from tenants.models import Site
from tests.api.calling import Caller

PAGE, OTHER = "https://bakery.test", "https://florist.test"


@pytest.fixture(autouse=True)
def _pages(bakery: NewSite, florist: NewSite) -> None:
    Site.objects.filter(slug="bakery").update(origins=[PAGE])
    Site.objects.filter(slug="florist").update(origins=[OTHER])
    cached_lookups.clear_caches()


def told(response: HttpResponse) -> str | None:
    """Return whose pages may read the answer, once it is clear that it depends on who asks."""
    assert "Origin" in response["Vary"]
    assert not response.has_header("Access-Control-Allow-Credentials")
    return response.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [(PAGE, 200, PAGE), (OTHER, 403, None), ("https://evil.test", 403, None), ("null", 403, None)],
)
def test_only_the_sites_pages_may_read_its_answers(desk: Caller, origin: str, status: int, allowed: str | None) -> None:
    response = desk.get("/v1/jobs", origin=origin)

    assert (response.status_code, told(response)) == (status, allowed)


def test_servers_are_told_nothing_but_that_it_depends(desk: Caller) -> None:
    assert told(desk.get("/v1/jobs")) is None


def test_a_page_reads_what_stands_in_the_headers(desk: Caller) -> None:
    exposed = desk.get("/v1/jobs", origin=PAGE)["Access-Control-Expose-Headers"].lower().split(", ")

    assert {"x-request-id", "retry-after"} <= set(exposed)


@pytest.mark.parametrize(
    ("origin", "allowed"), [(PAGE, PAGE), (OTHER, OTHER), ("https://evil.test", None), ("null", None), ("a\x00b", None)]
)
def test_a_page_of_any_site_reads_why_nobody_was_proven(stranger: Caller, origin: str, allowed: str | None) -> None:
    response = stranger.get("/v1/jobs", origin=origin)

    assert (response.status_code, told(response)) == (401, allowed)


def test_a_page_reads_that_a_body_was_too_large(desk: Caller) -> None:
    response = desk.post("/v1/jobs", b"x" * 300_000, origin=PAGE)

    assert (response.status_code, told(response)) == (413, PAGE)


@pytest.mark.parametrize(
    ("origin", "method", "status", "allowed"),
    [
        (PAGE, "POST", 204, PAGE),
        (PAGE, "DELETE", 204, PAGE),
        (PAGE, "TRACE", 403, None),
        ("https://evil.test", "POST", 403, None),
        ("null", "GET", 403, None),
        ("", "GET", 403, None),
    ],
)
def test_preflights_are_for_pages_of_sites(
    stranger: Caller, origin: str, method: str, status: int, allowed: str | None
) -> None:
    response = stranger.call("OPTIONS", "/v1/jobs", origin=origin, access_control_request_method=method)

    assert (response.status_code, told(response), response.content) == (status, allowed, b"")


def test_a_site_that_is_switched_off_has_no_pages(stranger: Caller) -> None:
    Site.objects.filter(slug="bakery").update(is_active=False)

    response = stranger.call("OPTIONS", "/v1/jobs", origin=PAGE, access_control_request_method="GET")

    assert response.status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/admin/login/"])
def test_other_addresses_are_for_nobodys_pages(stranger: Caller, path: str) -> None:
    response = stranger.get(path, origin=PAGE)

    assert not response.has_header("Access-Control-Allow-Origin")

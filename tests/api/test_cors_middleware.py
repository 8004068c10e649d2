"""CORS headers of the REST API."""

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


def allowed_reader(response: HttpResponse) -> str | None:
    """Return the allowed origin of the response, after checking that it varies by Origin."""
    assert "Origin" in response["Vary"]
    assert not response.has_header("Access-Control-Allow-Credentials")
    return response.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [(PAGE, 200, PAGE), (OTHER, 403, None), ("https://evil.test", 403, None), ("null", 403, None)],
)
def test_only_pages_of_the_sites_origins_may_read_its_responses(
    desk: Caller, origin: str, status: int, allowed: str | None
) -> None:
    response = desk.get("/v1/jobs", origin=origin)

    assert (response.status_code, allowed_reader(response)) == (status, allowed)


def test_a_request_without_origin_gets_only_vary(desk: Caller) -> None:
    assert allowed_reader(desk.get("/v1/jobs")) is None


def test_a_page_may_read_the_exposed_headers(desk: Caller) -> None:
    exposed = desk.get("/v1/jobs", origin=PAGE)["Access-Control-Expose-Headers"].lower().split(", ")

    assert {"x-request-id", "retry-after"} <= set(exposed)


@pytest.mark.parametrize(
    ("origin", "allowed"), [(PAGE, PAGE), (OTHER, OTHER), ("https://evil.test", None), ("null", None), ("a\x00b", None)]
)
def test_pages_of_any_site_may_read_authentication_errors(stranger: Caller, origin: str, allowed: str | None) -> None:
    response = stranger.get("/v1/jobs", origin=origin)

    assert (response.status_code, allowed_reader(response)) == (401, allowed)


def test_a_page_may_read_that_its_body_was_too_large(desk: Caller) -> None:
    response = desk.post("/v1/jobs", b"x" * 300_000, origin=PAGE)

    assert (response.status_code, allowed_reader(response)) == (413, PAGE)


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
def test_preflights_succeed_for_origins_of_sites(
    stranger: Caller, origin: str, method: str, status: int, allowed: str | None
) -> None:
    response = stranger.call("OPTIONS", "/v1/jobs", origin=origin, access_control_request_method=method)

    assert (response.status_code, allowed_reader(response), response.content) == (status, allowed, b"")


def test_origins_of_a_disabled_site_are_not_allowed(stranger: Caller) -> None:
    Site.objects.filter(slug="bakery").update(is_active=False)

    response = stranger.call("OPTIONS", "/v1/jobs", origin=PAGE, access_control_request_method="GET")

    assert response.status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/admin/login/"])
def test_paths_outside_the_api_have_no_cors_headers(stranger: Caller, path: str) -> None:
    response = stranger.get(path, origin=PAGE)

    assert not response.has_header("Access-Control-Allow-Origin")

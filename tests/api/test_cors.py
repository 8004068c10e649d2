"""CORS: the headers of a response, and the response to a preflight."""

import pytest

from api.cors import EXPOSED_HEADERS, PreflightRequest, cors_headers, preflight_response

PAGE = "https://bakery.test"


def test_a_response_varies_by_origin_and_never_allows_cookies() -> None:
    for allowed in (None, PAGE):
        headers = dict(cors_headers(allowed))
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
def test_a_page_may_read_our_response_headers(name: str) -> None:
    assert name in EXPOSED_HEADERS
    assert name in dict(cors_headers(PAGE))[b"access-control-expose-headers"].decode().split(", ")


@pytest.mark.parametrize(
    ("preflight", "is_known", "status"),
    [
        (PreflightRequest(PAGE, "POST"), True, 204),
        (PreflightRequest(PAGE, "GET"), True, 204),
        (PreflightRequest(PAGE, "DELETE"), True, 204),
        (PreflightRequest(PAGE, "PUT"), True, 403),
        (PreflightRequest(PAGE, "post"), True, 403),
        (PreflightRequest(PAGE, None), True, 403),
        (PreflightRequest(None, "POST"), True, 403),
        (PreflightRequest("https://evil.test", "POST"), False, 403),
    ],
)
def test_a_preflight_is_granted_to_known_origins_and_methods(
    preflight: PreflightRequest, is_known: bool, status: int
) -> None:
    answered, headers = preflight_response(preflight, is_known=is_known)

    assert answered == status
    assert b"Origin" in dict(headers)[b"vary"]
    assert b"access-control-allow-credentials" not in dict(headers)
    assert (b"access-control-allow-origin" in dict(headers)) is (status == 204)


@pytest.mark.parametrize(
    ("requested", "granted"),
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
def test_a_preflight_grants_the_requested_headers_that_are_allowed(requested: str, granted: str | None) -> None:
    _, headers = preflight_response(PreflightRequest(PAGE, "POST", requested), is_known=True)

    found = dict(headers)[b"access-control-allow-headers"].decode()
    assert found == granted or (granted is None and len(found) < 1000)

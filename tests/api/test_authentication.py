"""Authentication and access over HTTP."""

import json

import pytest
from django.test import override_settings

from core import clock
from jobs.models import Job
from tenants import cached_lookups
from tenants.credentials import NewSite, revoke
from tenants.models import Site
from tests.api.calling import Caller, error_of, job_body
from tests.request_signing import signed, signed_legacy, token

BODY = json.dumps(job_body()).encode()
PATH = "/v1/jobs"


def sent(made: NewSite, desk: Caller, **headers: str) -> tuple[int, str, str]:
    """Submit a job with these headers; return status, code and message of the error."""
    response = Caller(None).call(
        "POST", PATH, BODY, **{name.lower().replace("-", "_"): v for name, v in headers.items()}
    )
    error = error_of(response)
    assert response["WWW-Authenticate"] == "Bearer"
    assert error["type"] == "authentication_error"
    assert not Job.objects.exists()
    return response.status_code, error["code"], error["message"]


def test_wrong_and_unknown_credentials_get_the_same_response(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    good = signed(bakery, "POST", PATH, BODY)
    unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJiYWtlcnkiLCJleHAiOjk5OTk5OTk5OTl9."
    revoke(florist.api_key.credential)
    cached_lookups.clear_caches()
    refused = [
        {**good, "X-Signature": "v1=" + "0" * 64},
        {**good, "X-Site-ID": "nobody"},
        {**good, "X-Site-ID": ""},
        {**good, "X-Site-ID": florist.site.public_id},
        {**good, "X-Timestamp": "0"},
        signed_legacy(bakery, BODY),
        {"Authorization": f"Bearer {unsigned}"},
        {"Authorization": f"Bearer {token(bakery, secret='w' * 50)}"},
        {"Authorization": f"Bearer {token(bakery, sub='nobody')}"},
        {"Authorization": f"Bearer {florist.api_key.secret}"},
        {"Authorization": f"Bearer {bakery.api_key.secret[:-1]}"},
        {"X-Api-Key": "nd_0123456789_" + "0" * 40},
    ]

    answers = {sent(bakery, desk, **headers) for headers in refused}

    assert len(answers) == 1
    assert next(iter(answers))[:2] == (401, "invalid_credentials")


@pytest.mark.parametrize("seconds", [-61, 61])
def test_a_stale_timestamp_is_explained(desk: Caller, bakery: NewSite, seconds: int) -> None:
    with clock.frozen(clock.now()):
        headers = signed(bakery, "POST", PATH, BODY, timestamp=clock.unix_seconds() + seconds)
        assert sent(bakery, desk, **headers)[:2] == (401, "stale_timestamp")


def test_an_expired_token_is_explained(desk: Caller, bakery: NewSite) -> None:
    late = token(bakery, exp=clock.unix_seconds() - 60)

    assert sent(bakery, desk, Authorization=f"Bearer {late}")[:2] == (401, "expired_credentials")


def test_missing_and_conflicting_credentials_are_explained(desk: Caller, bakery: NewSite) -> None:
    assert sent(bakery, desk)[:2] == (401, "missing_credentials")
    both = {**signed(bakery, "POST", PATH, BODY), "X-Api-Key": bakery.api_key.secret}
    assert sent(bakery, desk, **both)[:2] == (401, "conflicting_credentials")


def test_a_replayed_request_is_rejected(desk: Caller, bakery: NewSite) -> None:
    headers = signed(bakery, "POST", PATH, BODY)
    first = desk.post_signed(PATH, BODY, **headers)

    again = desk.post_signed(PATH, BODY, **headers)

    assert (first.status_code, again.status_code) == (202, 401)
    assert error_of(again)["code"] == "replayed_request"
    assert Job.objects.count() == 1


def test_the_signature_covers_the_query(desk: Caller, bakery: NewSite) -> None:
    target = "/v1/jobs?limit=1&model=a%20b"
    headers = {name.lower().replace("-", "_"): value for name, value in signed(bakery, "GET", target).items()}

    assert desk.get(target, **headers).status_code == 200


@pytest.mark.parametrize(
    ("proxies", "forwarded", "status"),
    [
        (0, "203.0.113.5", 403),
        (1, "203.0.113.5", 202),
        (1, "6.6.6.6, 203.0.113.5", 202),
        (1, "203.0.113.5, 6.6.6.6", 403),
    ],
)
def test_only_addresses_on_the_allowlist_are_accepted(desk: Caller, proxies: int, forwarded: str, status: int) -> None:
    Site.objects.update(ip_allowlist=["203.0.113.0/24"])

    with override_settings(TRUSTED_PROXY_COUNT=proxies):
        response = desk.post(PATH, BODY, x_forwarded_for=forwarded)

    assert response.status_code == status
    if status == 403:
        assert error_of(response)["code"] == "address_not_allowed"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://bakery.test", 202), ("https://evil.test", 403), ("null", 403), ("http://testserver", 202)],
)
def test_browser_requests_are_accepted_from_the_sites_origins_and_the_docs_page(
    desk: Caller, origin: str, status: int
) -> None:
    Site.objects.update(origins=["https://bakery.test"])

    with override_settings(ALLOWED_HOSTS=["testserver"]):
        response = desk.post(PATH, BODY, origin=origin)

    assert response.status_code == status
    if status == 403:
        assert error_of(response)["code"] == "origin_not_allowed"

"""`/v1/tokens` and `/v1/tickets` over HTTP."""

import json
from typing import Any

import pytest
from django.http import HttpResponse

from core import clock
from core.ids import new_uuid, to_public
from jobs.models import Job
from tenants import cached_lookups, tickets
from tenants.credentials import NewSite, revoke
from tenants.models import Site
from tenants.tickets import ReadableKind
from tests.api.calling import JOB, Caller, error_of
from tests.factories import make_job
from tests.request_signing import token

PAGE = "https://bakery.test"
WANTED = {"scope": "jobs:write jobs:read", "origin": PAGE}


@pytest.fixture(autouse=True)
def _pages(bakery: NewSite, florist: NewSite) -> None:
    Site.objects.filter(slug="bakery").update(origins=[PAGE, "https://shop.bakery.test"])
    Site.objects.filter(slug="florist").update(origins=["https://florist.test"])
    cached_lookups.clear_caches()


def read(response: HttpResponse, status: int = 201) -> dict[str, Any]:
    assert response.status_code == status, response.content[:500]
    found: dict[str, Any] = json.loads(response.content)
    return found


def mint(desk: Caller, **wanted: Any) -> str:
    return str(read(desk.post("/v1/tokens", {"scope": "jobs:write jobs:read", **wanted}))["token"])


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


# Tokens


def test_a_new_token_lists_its_restrictions(desk: Caller) -> None:
    with clock.frozen(clock.now().replace(year=2026, month=11, day=21, hour=9, minute=0, second=0, microsecond=0)):
        response = desk.post(
            "/v1/tokens",
            {**WANTED, "model": "gpt-5-mini", "max_tokens": 50, "expires_in": 900, "user": "customer-4711"},
        )

    shown = read(response)
    assert response["Cache-Control"] == "no-store"
    assert shown.pop("token").startswith("eyJ")
    assert shown.pop("id").startswith("tok_")
    assert shown == {
        "object": "token",
        "scope": "jobs:read jobs:write",
        "model": "gpt-5-mini",
        "max_tokens": 50,
        "origin": PAGE,
        "user": "customer-4711",
        "expires_at": "2026-11-21T09:15:00Z",
    }


def test_a_browser_page_submits_and_reads_jobs_with_a_token(desk: Caller, stranger: Caller) -> None:
    credentials = {**bearer(mint(desk, origin=PAGE)), "origin": PAGE}

    posted = stranger.post("/v1/jobs", JOB, **credentials)
    found = stranger.get(f"/v1/jobs/{read(posted, 202)['id']}", **credentials)

    assert read(found, 200)["state"] == "queued"
    assert posted["Access-Control-Allow-Origin"] == found["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    ("narrow", "headers", "path", "code"),
    [
        ({"scope": "jobs:read"}, {}, "/v1/jobs", "insufficient_scope"),
        ({"scope": "chat:write"}, {}, "/v1/jobs", "insufficient_scope"),
        ({"scope": "jobs:read jobs:write webhooks:write"}, {}, "/v1/tokens", "insufficient_scope"),
        ({"model": "gpt-5"}, {}, "/v1/jobs", "model_not_allowed"),
        ({"origin": PAGE}, {}, "/v1/jobs", "origin_not_allowed"),
        ({"origin": PAGE}, {"origin": "https://shop.bakery.test"}, "/v1/jobs", "origin_not_allowed"),
        ({"origin": PAGE}, {"origin": "https://florist.test"}, "/v1/jobs", "origin_not_allowed"),
        ({"origin": PAGE}, {"origin": "null"}, "/v1/jobs", "origin_not_allowed"),
        ({}, {"origin": "https://florist.test"}, "/v1/jobs", "origin_not_allowed"),
        ({}, {"x_site_id": "florist"}, "/v1/jobs", "conflicting_credentials"),
    ],
)
def test_the_restrictions_of_a_token_are_enforced(
    desk: Caller, stranger: Caller, narrow: dict[str, str], headers: dict[str, str], path: str, code: str
) -> None:
    text = mint(desk, **narrow)

    response = stranger.post(path, JOB if path == "/v1/jobs" else WANTED, **bearer(text), **headers)

    assert error_of(response)["code"] == code
    assert not Job.objects.exists()


def test_the_max_tokens_of_a_narrow_token_apply_to_requests(desk: Caller, stranger: Caller) -> None:
    many = {**JOB, "body": {**JOB["body"], "max_completion_tokens": 51}}

    response = stranger.post("/v1/jobs", many, **bearer(mint(desk, max_tokens=50)))

    assert response.status_code in (400, 403), response.content


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "scope"),
        ({"scope": ""}, "scope"),
        ({"scope": "jobs:read everything"}, "scope"),
        ({"scope": "tokens:write"}, "scope"),
        ({"scope": ["jobs:read"]}, "scope"),
        ({"scope": "jobs:read", "expires_in": 0}, "expires_in"),
        ({"scope": "jobs:read", "expires_in": 3601}, "expires_in"),
        ({"scope": "jobs:read", "expires_in": "60"}, "expires_in"),
        ({"scope": "jobs:read", "max_tokens": 0}, "max_tokens"),
        ({"scope": "jobs:read", "max_tokens": 2**31}, "max_tokens"),
        ({"scope": "jobs:read", "model": ""}, "model"),
        ({"scope": "jobs:read", "user": ""}, "user"),
        ({"scope": "jobs:read", "user": "x" * 129}, "user"),
        ({"scope": "jobs:read", "user": "anna\n"}, "user"),
        ({"scope": "jobs:read", "user": "anna\u200b"}, "user"),
        ({"scope": "jobs:read", "user": 7}, "user"),
        ({"scope": "jobs:read", "site": "florist"}, "site"),
    ],
)
def test_an_invalid_token_request_names_the_field(desk: Caller, body: dict[str, Any], param: str) -> None:
    response = desk.post("/v1/tokens", body)

    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize("origin", ["https://florist.test", "https://bakery.test.evil.test", "null", "bakery.test"])
@pytest.mark.parametrize("path", ["/v1/tokens", "/v1/tickets"])
def test_tokens_and_tickets_are_minted_only_for_origins_of_the_site(desk: Caller, path: str, origin: str) -> None:
    stream = {"stream": to_public("stm", new_uuid())}

    response = desk.post(path, {**(stream if path == "/v1/tickets" else {"scope": "jobs:read"}), "origin": origin})

    assert (response.status_code, error_of(response)["code"]) == (403, "origin_not_allowed")


def test_a_restricted_jwt_cannot_mint_a_token_that_allows_more(stranger: Caller, bakery: NewSite) -> None:
    def answer(jwt_scope: str, **wanted: Any) -> tuple[int, str]:
        credentials = bearer(token(bakery, scope=jwt_scope, max_tokens=100))
        response = stranger.post("/v1/tokens", {"scope": "jobs:read", **wanted}, **credentials)
        return response.status_code, "" if response.status_code == 201 else error_of(response)["code"]

    assert answer("jobs:read") == (403, "insufficient_scope")
    assert answer("jobs:read tokens:write") == (201, "")
    assert answer("jobs:read tokens:write", scope="jobs:read jobs:write") == (403, "scope_exceeds_grant")
    assert answer("jobs:read tokens:write", max_tokens=101) == (403, "scope_exceeds_grant")


@pytest.mark.parametrize("end", ["revoked", "switched off"])
def test_a_token_is_invalid_once_its_credential_is_revoked_or_its_site_disabled(
    desk: Caller, stranger: Caller, bakery: NewSite, end: str
) -> None:
    text = mint(desk)
    assert stranger.get("/v1/jobs", **bearer(text)).status_code == 200

    if end == "revoked":
        revoke(bakery.api_key.credential)
    else:
        Site.objects.filter(slug="bakery").update(is_active=False)
    cached_lookups.clear_caches()

    assert error_of(stranger.get("/v1/jobs", **bearer(text)))["code"] == "invalid_credentials"


# Tickets


def test_a_ticket_for_a_job_returns_the_events_url(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)

    shown = read(desk.post("/v1/tickets", {"job": job.public_id, "origin": PAGE}))

    found = tickets.verify(shown["ticket"])
    assert (found.kind, found.public_id, found.site, found.origin) == (
        ReadableKind.JOB,
        job.public_id,
        bakery.site.public_id,
        PAGE,
    )
    assert shown["events_url"].endswith(f"/v1/jobs/{job.public_id}/events")
    assert shown["object"] == "ticket"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "missing_required_parameter"),
        ({"stream": "stm_1"}, 400, "invalid_value"),
        ({"stream": "stm_01ka2m7v5xf3v8k0q9r6t4w2ye", "job": "job_01ka2m7v5xf3v8k0q9r6t4w2ye"}, 400, None),
        ({"job": "job_01ka2m7v5xf3v8k0q9r6t4w2ye"}, 404, "not_found"),
        ({"job": "nonsense"}, 404, "not_found"),
    ],
)
def test_an_invalid_ticket_request_is_rejected(
    desk: Caller, body: dict[str, str], status: int, code: str | None
) -> None:
    response = desk.post("/v1/tickets", body)

    assert response.status_code == status
    assert code in (error_of(response)["code"], None)


def test_a_ticket_for_another_sites_job_is_not_found(desk: Caller, florist: NewSite) -> None:
    assert desk.post("/v1/tickets", {"job": make_job(florist.site).public_id}).status_code == 404


def test_minting_a_ticket_needs_the_scope_to_read(desk: Caller, stranger: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)

    response = stranger.post("/v1/tickets", {"job": job.public_id}, **bearer(mint(desk, scope="streams:read")))

    assert error_of(response)["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/{job}"),
        ("POST", "/v1/jobs/{job}/cancel"),
        ("POST", "/v1/jobs/{job}/retry"),
        ("GET", "/v1/batches"),
        ("POST", "/v1/files"),
        ("GET", "/v1/webhook-endpoints"),
        ("GET", "/v1/deliveries"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/tickets"),
    ],
)
@pytest.mark.parametrize("header", ["authorization", "x_api_key"])
def test_a_ticket_is_rejected_at_every_other_path(
    desk: Caller, stranger: Caller, bakery: NewSite, method: str, path: str, header: str
) -> None:
    job = make_job(bakery.site)
    text = read(desk.post("/v1/tickets", {"job": job.public_id}))["ticket"]
    shown = {header: f"Bearer {text}" if header == "authorization" else text}

    response = stranger.call(method, path.format(job=job.public_id), JOB if method == "POST" else None, **shown)

    assert (response.status_code, error_of(response)["code"]) == (401, "malformed_credentials")
    job.refresh_from_db()
    assert job.state == "queued"

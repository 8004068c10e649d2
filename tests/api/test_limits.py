"""`GET /v1/limits` over HTTP. (`tests.api.live` tests the remaining quota while requests run.)"""

import json
from typing import Any

from django.http import HttpResponse
from pytest_django import Settings

from core import clock
from core.ids import new_uuid
from jobs.models import JobState
from tenants import cached_lookups
from tenants.credentials import NewSite
from tenants.models import Limit, Site
from tests.api.calling import Caller, error_of
from tests.factories import make_job
from tests.request_signing import bearer, token


def read(response: HttpResponse) -> dict[str, Any]:
    assert response.status_code == 200, response.content[:500]
    found: dict[str, Any] = json.loads(response.content)
    return found


def test_a_site_without_limits_has_an_empty_list(desk: Caller) -> None:
    assert read(desk.get("/v1/limits")) == {
        "object": "limits",
        "windows": [],
        "concurrency": {"limit": None, "running": None},
        "jobs": {"limit": None, "running": 0},
    }


def test_limits_are_listed_broadest_first(desk: Caller, bakery: NewSite) -> None:
    Limit.objects.create(site=bakery.site, kind="chat", model="gpt-5-mini", tokens_per_minute=500)
    Limit.objects.create(site=bakery.site, requests_per_minute=3, requests_per_day=100, concurrency=2)
    Limit.objects.create(kind="embeddings", requests_per_hour=7)

    found = read(desk.get("/v1/limits"))

    keys = ("name", "kind", "model", "unit", "seconds", "limit", "remaining", "reset_seconds")
    assert [tuple(each[key] for key in keys) for each in found["windows"]] == [
        ("site", None, None, "requests", 60, 3, 3, 0.0),
        ("site", None, None, "requests", 86_400, 100, 100, 0.0),
        ("kind:embeddings", "embeddings", None, "requests", 3_600, 7, 7, 0.0),
        ("kind:chat,model:gpt-5-mini", "chat", "gpt-5-mini", "tokens", 60, 500, 500, 0.0),
    ]
    assert found["concurrency"] == {"limit": 2, "running": 0}


def test_a_site_sees_only_its_own_limits_and_jobs(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    Site.objects.filter(slug="bakery").update(max_running_jobs=4)
    cached_lookups.clear_caches()
    Limit.objects.create(site=florist.site, requests_per_minute=9, concurrency=9)
    for site, count in ((bakery.site, 2), (florist.site, 3)):
        for _ in range(count):
            make_job(site, state=JobState.RUNNING, worker_id=new_uuid(), deadline_at=clock.now())
    make_job(bakery.site)

    assert read(desk.get("/v1/limits")) == {
        "object": "limits",
        "windows": [],
        "concurrency": {"limit": None, "running": None},
        "jobs": {"limit": 4, "running": 2},
    }
    assert read(Caller(florist).get("/v1/limits"))["jobs"] == {"limit": None, "running": 3}


def test_without_redis_limits_are_listed_and_the_remaining_quota_is_null(
    desk: Caller, bakery: NewSite, settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    Limit.objects.create(site=bakery.site, requests_per_minute=3, concurrency=2)

    found = read(desk.get("/v1/limits"))

    (window,) = found["windows"]
    assert (window["limit"], window["remaining"], window["reset_seconds"]) == (3, None, None)
    assert found["concurrency"] == {"limit": 2, "running": None}


def test_reading_limits_needs_the_scope(stranger: Caller, bakery: NewSite) -> None:
    refused = stranger.get("/v1/limits", **bearer(token(bakery, scope="chat:write jobs:read")))
    answered = stranger.get("/v1/limits", **bearer(token(bakery, scope="limits:read")))

    assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_scope")
    assert answered.status_code == 200


def test_reading_limits_needs_authentication(stranger: Caller) -> None:
    assert stranger.get("/v1/limits").status_code == 401

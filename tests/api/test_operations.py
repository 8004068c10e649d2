"""Liveness, readiness, OpenAPI document and docs page."""

import json
import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import override_settings

from jobs.worker.leases import acquire_lease
from tests.api.calling import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def anybody() -> Caller:
    return Caller(None)


def test_healthz_needs_no_credentials(anybody: Caller) -> None:
    response = anybody.get("/healthz")

    assert (response.status_code, json.loads(response.content)) == (200, {"status": "ok"})


def test_readyz_is_ok_with_a_worker_and_redis(anybody: Caller) -> None:
    acquire_lease()

    assert json.loads(anybody.get("/readyz").content) == {
        "status": "ok",
        "postgres": "ok",
        "redis": "ok",
        "broker": "ok",
        "workers": 1,
    }


def test_readyz_is_degraded_without_a_worker(anybody: Caller) -> None:
    response = anybody.get("/readyz")

    assert response.status_code == 200
    assert json.loads(response.content)["status"] == "degraded"


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")
def test_readyz_is_degraded_without_redis(anybody: Caller) -> None:
    acquire_lease()

    response = anybody.get("/readyz")

    assert response.status_code == 200
    assert json.loads(response.content)["redis"] == "unreachable"
    assert json.loads(response.content)["status"] == "degraded"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://desk:x@127.0.0.1:1/nightdesk"])
def test_readyz_is_degraded_without_a_separate_broker(anybody: Caller, url: str) -> None:
    acquire_lease()

    with override_settings(CELERY_BROKER_URL=url):
        answer = json.loads(anybody.get("/readyz").content)

    assert (answer["status"], answer["redis"], answer["broker"]) == ("degraded", "ok", "unreachable")


def test_the_docs_page_loads_only_from_this_server(anybody: Caller) -> None:
    page = anybody.get("/docs")
    html = page.content.decode()
    linked = re.findall(r'(?:src|href|data-document)="([^"]+)"', html)

    assert page.status_code == 200
    assert len(linked) >= 6
    assert all(link.startswith("/") and not link.startswith("//") for link in linked)
    assert "://" not in html
    for link in linked:
        assert anybody.get(link).status_code == 200, link


def test_the_csp_of_the_docs_page_allows_no_other_host_and_no_inline_script(anybody: Caller) -> None:
    page = anybody.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert "://" not in page["Content-Security-Policy"]
    assert not re.search(rb"<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=", page.content)


def test_stylesheets_of_the_docs_reference_no_host() -> None:
    for name in ("drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css", "api/docs.css"):
        found = finders.find(name)
        assert isinstance(found, str)
        css = Path(found).read_text()
        assert "@import" not in css
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", css)


def test_the_docs_script_sends_the_document_to_no_validator() -> None:
    found = finders.find("api/docs.js")
    assert isinstance(found, str)
    script = Path(found).read_text()

    assert "validatorUrl: null" in script
    assert "://" not in script

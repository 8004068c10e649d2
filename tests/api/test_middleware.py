"""Request ids, log context and early rejections."""

import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import RequestFactory

from api.middleware import RequestContextMiddleware
from tenants.credentials import NewSite
from tests.api.calling import Caller, error_of, job_body
from tests.factories import make_job

Lines: TypeAlias = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return a function that returns the log lines so far, with their context."""
    return lambda: [
        record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()} for record in caplog.records
    ]


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/v1/nothing", "/nothing", "/docs"])
def test_every_response_has_a_new_request_id(stranger: Caller, path: str) -> None:
    one, other = stranger.get(path)["X-Request-ID"], stranger.get(path)["X-Request-ID"]

    assert re.fullmatch(r"req_[0-9a-z]{26}", one)
    assert one != other


def test_the_client_request_id_is_echoed(stranger: Caller) -> None:
    assert stranger.get("/healthz", x_client_request_id="wp 4711")["X-Client-Request-ID"] == "wp 4711"


@pytest.mark.parametrize("given", ["", "x" * 129, "ünïcödë", "a\x01b"])
def test_an_invalid_client_request_id_is_not_echoed(stranger: Caller, given: str) -> None:
    assert "X-Client-Request-ID" not in stranger.get("/healthz", x_client_request_id=given)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/nothing", "/healthz"])
def test_api_responses_are_not_cacheable(desk: Caller, path: str) -> None:
    assert desk.get(path)["Cache-Control"] == "no-store"


def test_a_client_cannot_choose_the_request_id(stranger: Caller) -> None:
    assert stranger.get("/healthz", x_request_id="mine")["X-Request-ID"] != "mine"


def test_rejections_are_logged_with_ids_and_without_query_or_body(desk: Caller, lines: Lines) -> None:
    response = desk.post("/v1/jobs?q=private", job_body(kind="private"))

    (line,) = [each for each in lines() if each["event"] == "request_rejected"]
    assert response.status_code == 400
    assert (line["method"], line["path"], line["status"], line["site"]) == ("POST", "/v1/jobs", 400, "bakery")
    assert line["request_id"] == response["X-Request-ID"]
    assert line["level"] == "warning"
    assert float(str(line["ms"])) >= 0
    assert "private" not in json.dumps(lines())


def test_successful_requests_are_not_logged(desk: Caller, lines: Lines) -> None:
    desk.get("/v1/jobs")

    assert lines() == []


def test_log_context_does_not_leak_into_the_next_request(desk: Caller, lines: Lines) -> None:
    desk.post("/v1/jobs", job_body(kind="poem"))
    desk.made = None
    desk.get("/v1/jobs")

    assert "site" in lines()[0]
    assert "site" not in lines()[-1]
    assert lines()[0]["request_id"] != lines()[-1]["request_id"]


def test_an_unavailable_database_gets_503_outside_the_api_too() -> None:
    scope = RequestContextMiddleware(lambda request: HttpResponse())
    request = RequestFactory().get("/admin/")

    response = scope.process_exception(request, OperationalError("no connection to secret-host"))

    assert response is not None
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert b"secret" not in response.content
    assert scope.process_exception(request, ValueError()) is None


def test_an_exception_in_a_view_gets_500_in_json_and_is_logged(desk: Caller, bakery: NewSite, lines: Lines) -> None:
    job = make_job(bakery.site)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET result = %s", [b"not sealed: secret words"])

    response = desk.get(f"/v1/jobs/{job.public_id}")

    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert b"secret" not in response.content
    assert [line["event"] for line in lines()] == ["unhandled_exception", "request_failed"]
    assert lines()[0]["error"] == "TamperedCiphertext"

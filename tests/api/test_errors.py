"""One table, one body."""

import django.db
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.test import RequestFactory, override_settings
from psycopg.errors import DiskFull
from rest_framework import exceptions as drf
from rest_framework.exceptions import ErrorDetail

import jobs.errors
import tenants.errors
import webhooks.errors
from api import errors
from api.errors import TABLE, Malformed, Problem, is_api, problem_of, row_of, to_response
from core.redis import RedisAway
from inference.errors import InferenceError
from jobs.errors import InvalidBody
from streams.errors import CursorExpired, StreamError
from tenants.errors import Missing, ModelNotAllowed, Stale, TenantError
from tests.api.calling import Caller, error_of
from webhooks.errors import WebhookError

DISK_IS_FULL = django.db.OperationalError("secret path")
DISK_IS_FULL.__cause__ = DiskFull()


def leaves(root: type[BaseException]) -> list[type[BaseException]]:
    below = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return below or [root]


def test_every_error_that_can_come_from_below_has_a_line_of_its_own_or_its_ancestors() -> None:
    roots = (jobs.errors.JobError, TenantError, InferenceError, WebhookError, StreamError, errors.ApiError)
    # These never come from a request: commands and the admin make sites, and couriers sign.
    elsewhere = {*leaves(tenants.errors.Unissuable), webhooks.errors.NoLiveSecret}

    missing = [
        leaf for root in roots for leaf in leaves(root) if leaf not in elsewhere and row_of(leaf) is TABLE[Exception]
    ]

    assert missing == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (Missing(), (401, "missing_credentials", None)),
        (Stale("late"), (401, "stale_timestamp", None)),
        (ModelNotAllowed("no"), (403, "model_not_allowed", None)),
        (InvalidBody("bad", "messages.0"), (400, "invalid_value", "body.messages.0")),
        (InvalidBody("bad"), (400, "invalid_value", "body")),
        (Malformed("bad", "a.b"), (400, "malformed_body", "a.b")),
        (drf.MethodNotAllowed("PUT"), (405, "method_not_allowed", None)),
        (drf.ValidationError({"a": [ErrorDetail("x", "required")]}), (400, "missing_required_parameter", "a")),
        (drf.ValidationError({"a": {"b": ["x"]}}), (400, "invalid_value", "a.b")),
        (drf.ValidationError({"a": {"0": ["x"]}}), (400, "invalid_value", "a.0")),
        (drf.ValidationError({"non_field_errors": ["x"]}), (400, "invalid_value", None)),
        (drf.ValidationError(["x"]), (400, "invalid_value", None)),
        (Http404(), (404, "not_found", None)),
        (PermissionDenied(), (403, "forbidden", None)),
        (SuspiciousOperation("x"), (400, "bad_request", None)),
        (django.db.OperationalError("secret host"), (503, "database_unavailable", None)),
        (DISK_IS_FULL, (507, "storage_full", None)),
        (django.db.InterfaceError("secret host"), (503, "database_unavailable", None)),
        (django.db.IntegrityError("secret row"), (409, "conflict", None)),
        (CursorExpired("too old"), (409, "stream_cursor_expired", None)),
        (RedisAway("secret host"), (503, "not_ready", None)),
        (RuntimeError("secret words"), (500, "internal_error", None)),
        (RecursionError("secret words"), (500, "internal_error", None)),
    ],
)
def test_an_error_becomes_its_problem(error: Exception, problem: tuple[int, str, str | None]) -> None:
    found = problem_of(error)

    assert (found.status, found.code, found.param) == problem
    assert "secret" not in found.message


@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (429, "Retry-After"), (503, "Retry-After")])
def test_some_answers_say_what_to_do_in_a_header(status: int, header: str) -> None:
    request = RequestFactory().get("/v1/jobs")

    assert to_response(Problem(status, "t", "c", "m"), request).has_header(header)
    assert not to_response(Problem(400, "t", "c", "m"), request).has_header(header)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1", True), ("/v1/x", True), ("/api/v1/chat", True), ("/readyz", True), ("/v1x", False), ("/admin/", False)],
)
def test_errors_are_json_where_programs_ask(path: str, api: bool) -> None:
    assert is_api(path) is api


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1/jobs/a/b/c", "/api/v1/chat", "/api"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_an_unknown_address_is_told_in_the_apis_words(stranger: Caller, debug: bool, path: str, method: str) -> None:
    with override_settings(DEBUG=debug):
        response = stranger.call(method, path)

    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_a_wrong_method_is_told_which_ones_there_are(desk: Caller, method: str) -> None:
    response = desk.call(method, "/v1/jobs")

    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response["Allow"] == "GET, POST, HEAD"


@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/v1/nothing"])
@pytest.mark.parametrize("debug", [True, False])
def test_a_foreign_host_header_is_refused(stranger: Caller, path: str, debug: bool) -> None:
    with override_settings(DEBUG=debug, ALLOWED_HOSTS=["desk.test"]):
        response = stranger.get(path, host="evil.test")

    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_pages_for_people_are_not_told_in_json(stranger: Caller) -> None:
    with override_settings(DEBUG=False):
        response = stranger.get("/nothing")

    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")

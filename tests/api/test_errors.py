"""One table for all errors."""

import django.db
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from psycopg.errors import DiskFull
from rest_framework import exceptions as drf
from rest_framework.exceptions import ErrorDetail

import jobs.errors
import tenants.errors
import webhooks.errors
from api import errors
from api.errors import ERROR_TABLE, MalformedBody, mapping_for, to_problem
from core.redis import RedisUnavailable
from inference.errors import InferenceError
from jobs.errors import InvalidBody
from streams.errors import CursorExpired, StreamError
from tenants.errors import MissingCredentials, ModelNotAllowed, StaleTimestamp, TenantError
from webhooks.errors import WebhookError

DISK_IS_FULL = django.db.OperationalError("secret path")
DISK_IS_FULL.__cause__ = DiskFull()


def leaves(root: type[BaseException]) -> list[type[BaseException]]:
    below = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return below or [root]


def test_every_error_that_can_come_from_below_has_a_line_of_its_own_or_its_ancestors() -> None:
    roots = (jobs.errors.JobError, TenantError, InferenceError, WebhookError, StreamError, errors.ApiError)
    # These never come from a request: commands and the admin make sites, and couriers sign.
    elsewhere = {*leaves(tenants.errors.ProvisioningError), webhooks.errors.NoLiveSecret}

    missing = [
        leaf
        for root in roots
        for leaf in leaves(root)
        if leaf not in elsewhere and mapping_for(leaf) is ERROR_TABLE[Exception]
    ]

    assert missing == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (MissingCredentials(), (401, "missing_credentials", None)),
        (StaleTimestamp("late"), (401, "stale_timestamp", None)),
        (ModelNotAllowed("no"), (403, "model_not_allowed", None)),
        (InvalidBody("bad", "messages.0"), (400, "invalid_value", "body.messages.0")),
        (InvalidBody("bad"), (400, "invalid_value", "body")),
        (MalformedBody("bad", "a.b"), (400, "malformed_body", "a.b")),
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
        (RedisUnavailable("secret host"), (503, "not_ready", None)),
        (RuntimeError("secret words"), (500, "internal_error", None)),
        (RecursionError("secret words"), (500, "internal_error", None)),
    ],
)
def test_an_error_becomes_its_problem(error: Exception, problem: tuple[int, str, str | None]) -> None:
    found = to_problem(error)

    assert (found.status, found.code, found.param) == problem
    assert "secret" not in found.message

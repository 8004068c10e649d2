"""The table of errors: it covers every exception, and the reference lists every code."""

import ast
import re
from collections.abc import Iterator, Mapping

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
from api.errors import ERROR_TABLE, VALIDATION_CODES, MalformedBody, code_of, mapping_for, to_problem
from core.redis import RedisUnavailable
from inference.errors import InferenceError
from jobs.errors import InvalidBody
from jobs.worker.outcomes import PROVIDERS_IN_COOLDOWN, RETRY_BUDGET_EXHAUSTED
from live.errors import LiveError
from providers.errors import ProviderError
from providers.invalid_request import InvalidRequest
from streams.errors import CursorExpired, StreamError
from tenants.errors import MissingCredentials, ModelNotAllowed, StaleTimestamp, TenantError
from tests.test_layout import ROOT, SOURCES, tree
from webhooks.errors import WebhookError

#: Classes whose instances carry a code, and the position of that argument.
API_CODES = {"InvalidRequest": 2, "BatchRequestRejected": 0, "BatchIssue": 0}
JOB_CODES = {"AttemptFailed": 0, "JobProblem": 0, "AttemptReleased": 1}
#: `jobs.batches.requests` chooses these from a table.
COMPUTED_CODES = {"invalid_method", "invalid_url"}

DISK_IS_FULL = django.db.OperationalError("secret path")
DISK_IS_FULL.__cause__ = DiskFull()


def leaves(root: type[BaseException]) -> list[type[BaseException]]:
    below = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return below or [root]


def test_every_error_of_the_lower_rooms_has_a_row_or_an_ancestor_with_one() -> None:
    roots = (jobs.errors.JobError, TenantError, InferenceError, LiveError, WebhookError, StreamError, errors.ApiError)
    # A request never raises these: commands and the admin provision sites, and couriers sign.
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
        (RedisUnavailable("secret host"), (503, "redis_unavailable", None)),
        (RuntimeError("secret words"), (500, "internal_error", None)),
        (RecursionError("secret words"), (500, "internal_error", None)),
    ],
)
def test_each_exception_maps_to_its_status_code_and_param(
    error: Exception, problem: tuple[int, str, str | None]
) -> None:
    found = to_problem(error)

    assert (found.status, found.code, found.param) == problem
    assert "secret" not in found.message


def test_the_error_reference_lists_every_code_of_the_api_and_no_other() -> None:
    assert _listed_codes(of_jobs=False) == {
        *_codes_of_the_table(),
        *VALIDATION_CODES.values(),
        *_literal_codes(API_CODES),
        *COMPUTED_CODES,
    }


def test_the_error_reference_lists_every_code_of_jobs_and_attempts_and_no_other() -> None:
    assert _listed_codes(of_jobs=True) == {
        *(leaf.kind for leaf in _provider_errors(ProviderError)),
        *_literal_codes(JOB_CODES),
        RETRY_BUDGET_EXHAUSTED,
        PROVIDERS_IN_COOLDOWN,
    }


def _listed_codes(*, of_jobs: bool) -> set[str]:
    """Return the codes in the tables of the reference; `code` is the last column but one."""
    api_part, _, job_part = (ROOT / "docs" / "reference" / "errors.md").read_text().partition("## Why a job failed")
    rows = re.findall(r"^\|(.*)$", job_part if of_jobs else api_part, flags=re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[-3])} - {"code"}


def _codes_of_the_table() -> Iterator[str]:
    for error in ERROR_TABLE:
        if mapping_for(error).code is not None:
            yield code_of(error)
        elif error is InvalidRequest:
            yield "invalid_value"
        else:
            yield from (code_of(leaf) for leaf in leaves(error))


def _provider_errors(root: type[ProviderError]) -> Iterator[type[ProviderError]]:
    for child in root.__subclasses__():
        yield child
        yield from _provider_errors(child)


def _literal_codes(positions: Mapping[str, int]) -> Iterator[str]:
    """Yield the codes that the source code passes as literals to these classes."""
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            position = positions.get(node.func.id)
            if position is not None and len(node.args) > position:
                argument = node.args[position]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value

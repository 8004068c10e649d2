"""Property tests from the OpenAPI document: every response is one that it lists, and never a 500."""

import json
import zlib
from typing import Any, TypeAlias

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.live.openapi_operations import LIVE_OPERATIONS
from api.openapi import openapi_json
from inference.models import Route
from tenants.credentials import NewSite

pytestmark = pytest.mark.django_db(transaction=True)

Case: TypeAlias = "schemathesis.Case[Any]"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: Deterministic, so every run sends the same requests; failing requests are not shrunk, which takes too long. The
#: explicit examples are those of schemathesis: every bound of every field, from both sides.
BOUNDED = settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
#: Unauthenticated requests are rejected before anything else, so a few are enough.
FEW = settings(BOUNDED, max_examples=4, phases=[Phase.generate])

#: The body of a job has some 1,800 bounds, most of them of similar fields; one in this many is tested.
ONE_IN = 5


@pytest.fixture
def key(bakery: NewSite, route: Route) -> str:
    return bakery.api_key.secret


#: The paths that Django serves. `tests/api/live` tests the live path on its own servers.
schema = schemathesis.openapi.from_dict(json.loads(openapi_json()), config=SchemathesisConfig()).exclude(
    path=[each.path for each in LIVE_OPERATIONS]
)


@schema.parametrize()
@BOUNDED
def test_no_request_of_a_site_gets_an_undocumented_response(case: Case, url: str, key: str) -> None:
    if is_tried(case):
        case.call_and_validate(url, headers={"Authorization": f"Bearer {key}"}, checks=CHECKS)


def is_tried(case: Case) -> bool:
    """Select by a hash of the request, so that every run sends the same requests."""
    if case.operation.label != "POST /v1/jobs":
        return True
    return zlib.crc32(repr((case.body, case.query)).encode()) % ONE_IN == 0


@schema.parametrize()
@FEW
def test_no_unauthenticated_request_gets_an_undocumented_response(case: Case, url: str) -> None:
    case.call_and_validate(url, checks=CHECKS)

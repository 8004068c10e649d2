"""Whatever the OpenAPI document allows or forbids, the answer is one that it lists, and never a 500."""

import json

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

from api.schema import document
from inference.models import Route
from tenants.credentials import NewSite

pytestmark = pytest.mark.django_db(transaction=True)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: The same requests in every run; no request is worth waiting for a smaller one like it.
BOUNDED = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def key(bakery: NewSite, route: Route) -> str:
    return bakery.api_key.secret


schema = schemathesis.openapi.from_dict(json.loads(document()), config=SchemathesisConfig())


@schema.parametrize()
@BOUNDED
def test_a_site_gets_no_500(case: schemathesis.Case, url: str, key: str) -> None:
    case.call_and_validate(url, headers={"Authorization": f"Bearer {key}"}, checks=CHECKS)


@schema.parametrize()
@settings(BOUNDED, max_examples=4)  # a stranger is refused before anything is read
def test_a_stranger_gets_no_500(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(url, checks=CHECKS)

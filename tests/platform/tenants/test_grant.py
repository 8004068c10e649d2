"""Grants as they are stored: only restrictions, and those of a newer version are kept."""

import json
from typing import Any

import pytest
from django.db import connection

from jobs.models import Batch
from tenants.authentication import AuthMethod, Identity
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site
from tests.factories import make_batch


def stored(batch: Batch) -> object:
    with connection.cursor() as cursor:
        cursor.execute('SELECT "grant" FROM jobs_batch WHERE id = %s', [batch.id])
        return json.loads(cursor.fetchone()[0])


@pytest.mark.parametrize(
    ("grant", "row"),
    [
        (UNRESTRICTED, {}),
        (Grant("gpt-5"), {"only_model": "gpt-5"}),
        (Grant(max_tokens=9, allows_premium_tiers=False), {"max_tokens": 9, "allows_premium_tiers": False}),
        (Grant(max_tokens=9, unknown=(("max_budget", 5),)), {"max_tokens": 9, "max_budget": 5}),
    ],
)
def test_a_grant_is_stored_as_its_restrictions_and_read_back(site: Site, grant: Grant, row: object) -> None:
    batch = make_batch(site, grant=grant)

    assert stored(batch) == row
    assert Batch.objects.get(id=batch.id).grant == grant


@pytest.mark.parametrize(
    ("restrictions", "scope"),
    [
        ({}, ""),
        ({"token_id": "tok_1", "grant": Grant("gpt-5")}, "tok_1"),
        ({"scopes": frozenset({"jobs:write", "jobs:read"})}, "715fe0da86aa99d467e7f7e66e29606f"),
        ({"scopes": frozenset()}, "0612e878375fd519c157d0aa4b65b434"),
        ({"grant": Grant("gpt-5", 10, allows_premium_tiers=False)}, "e860e89ec53cce40835e2110b40adf5b"),
        ({"origin": "https://bakery.test"}, "eebd9115824b63dae71367b1c4dd98e3"),
    ],
)
def test_the_scope_of_idempotency_keys_is_stable(restrictions: dict[str, Any], scope: str) -> None:
    """It is stored: if one of these changes, restricted callers repeat paid requests after an upgrade."""
    assert Identity(Site(slug="bakery"), AuthMethod.JWT, "key_1", **restrictions).idempotency_scope == scope

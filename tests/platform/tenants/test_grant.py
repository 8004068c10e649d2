"""Grants as they are stored: only restrictions, and those of a newer version are kept."""

import json

import pytest
from django.db import connection

from jobs.models import Batch
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

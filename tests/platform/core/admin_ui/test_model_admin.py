"""Lists that stay cheap however long they are."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from core.admin_ui import model_admin
from core.admin_ui.model_admin import BoundedPaginator
from jobs.models import Job
from tenants.models import Site
from tests.factories import make_job, make_site
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """Count to three at most."""
    monkeypatch.setattr(model_admin, "MAX_COUNT", 3)
    return 3


def make_sites(count: int) -> None:
    for number in range(count):
        make_site(f"site-{number}")


@pytest.mark.parametrize(("rows", "count", "is_truncated"), [(0, 0, False), (3, 3, False), (4, 3, True), (9, 3, True)])
def test_the_paginator_counts_up_to_its_limit(bound: int, rows: int, count: int, is_truncated: bool) -> None:
    make_sites(rows)

    paginator = BoundedPaginator(Site.objects.order_by("slug"), 2)

    assert (paginator.count, paginator.is_truncated) == (count, is_truncated)


def test_the_count_query_has_a_limit_and_no_order(bound: int) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert BoundedPaginator(Site.objects.select_related().order_by("slug"), 2).is_truncated is False

    (query,) = (each["sql"] for each in queries)
    assert "LIMIT 4" in query
    assert "ORDER BY" not in query


def test_the_paginator_counts_plain_lists(bound: int) -> None:
    assert BoundedPaginator([1, 2, 3, 4], 2).count == 3


def test_a_truncated_list_says_so(bound: int, site: Site) -> None:
    browser = sign_in()
    for jobs, words_of_it in ((3, "3 jobs"), (4, "first 3 jobs; use filters to narrow the list")):
        while Job.objects.count() < jobs:
            make_job(site)
        assert words_of_it in words(browser.get("/admin/jobs/job/").content.decode())

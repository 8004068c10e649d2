"""Reports of workers, and how the admin shows them."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from core.ids import new_uuid
from jobs.models import WorkerLease
from jobs.worker.reports import RetryBudgetReport, count_deferred_retries, live_retry_budgets
from tenants.models import Site
from tests.factories import make_site
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

WORKERS = "/admin/jobs/workerlease/"


def make_lease(host: str, seconds: int = 3600, **report: Any) -> WorkerLease:
    expires_at = timezone.now() + timedelta(seconds=seconds)
    return WorkerLease.objects.create(
        worker_id=new_uuid(), host=host, pid=1, version="0.1.0", expires_at=expires_at, report=report
    )


def spent(scope: str, name: object, first_tries: int, retries: int, refused: int) -> dict[str, Any]:
    budgets = {"first_tries": first_tries, "retries": retries, "refused": refused}
    return {"scope": scope, "name": str(name), **budgets}


def rows(html: str) -> Iterator[str]:
    return (words("<tr " + row) for row in html.split("<tr")[1:])


def test_retry_budgets_are_named_by_slug_and_sorted_by_deferred_retries(site: Site) -> None:
    make_lease("quiet")
    make_lease("busy", retry_budgets=[spent("provider", "sim", 40, 8, 2), spent("site", site.id, 40, 8, 7)])
    make_lease("dead", -60, retry_budgets=[spent("provider", "sim", 1, 1, 99)])

    assert live_retry_budgets() == [
        RetryBudgetReport("busy:1", "site", "bakery", 40, 8, 7),
        RetryBudgetReport("busy:1", "provider", "sim", 40, 8, 2),
    ]


def test_the_budget_of_a_deleted_site_is_named_by_its_id() -> None:
    gone = new_uuid()
    make_lease("busy", retry_budgets=[spent("site", gone, 4, 1, 0)])

    assert live_retry_budgets()[0].name == str(gone)


def test_a_retry_that_two_budgets_refused_counts_as_one_deferred(site: Site) -> None:
    florist = make_site("florist")
    budgets = [spent("site", site.id, 9, 1, 3), spent("site", florist.id, 9, 1, 2), spent("provider", "sim", 9, 2, 4)]
    make_lease("busy", retry_budgets=budgets)

    assert count_deferred_retries(live_retry_budgets()) == 5
    assert count_deferred_retries([]) == 0


def test_the_worker_list_shows_slots_and_budgets_and_marks_deferred_retries(site: Site) -> None:
    budgets = [spent("site", site.id, 40, 8, 0), spent("provider", "<b>sim</b>", 41, 9, 3)]
    make_lease("worker-7", slots=500, jobs=0, retry_budgets=budgets)

    html = sign_in().get(WORKERS).content.decode()

    found = list(rows(html))
    assert any("worker-7" in row and "0 of 500" in row for row in found)
    assert any("worker-7:1 site bakery 40 8 0" in row for row in found)
    assert any("provider <b>sim</b> 41 9 3" in row for row in found)
    assert '<strong class="nd-bad">3</strong>' in html
    assert html.count("nd-bad") == 1
    assert "<b>sim</b>" not in html


def test_the_worker_list_without_retries_says_so() -> None:
    make_lease("worker-7")

    page = words(sign_in("jobs.view_workerlease").get(WORKERS).content.decode())

    assert "No retries in the last minute." in page


def test_the_overview_counts_deferred_retries(site: Site) -> None:
    browser: Client = sign_in()
    assert "deferred" not in words(browser.get("/admin/").content.decode())
    make_lease("busy", retry_budgets=[spent("site", site.id, 40, 8, 1234)])

    assert "Deferred retries 1,234 in the last minute" in words(browser.get("/admin/").content.decode())
    assert "deferred" not in words(sign_in("jobs.view_job", name="ben").get("/admin/").content.decode())

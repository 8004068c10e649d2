"""The overview page of the admin."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.ids import new_uuid
from jobs.worker.leases import acquire_lease
from metering.models import UsageEvent
from tenants.models import Site
from tests.factories import make_job, make_site
from tests.operators import sign_in, words
from webhooks.models import Delivery, Endpoint, Event

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def home(browser: Client) -> str:
    return words(browser.get("/admin/").content.decode())


def make_call(site: Site, minutes_ago: int = 5, **fields: Any) -> None:
    started_at = NOW - timedelta(minutes=minutes_ago)
    UsageEvent.objects.create(dedupe_key=str(new_uuid()), site=site, call=1, started_at=started_at, **fields)


def make_delivery(site: Site, state: str) -> None:
    event = Event.objects.create(site=site, type="job.succeeded", payload=b"{}")
    endpoint = Endpoint.objects.create(site=site, url="https://bakery.test/hook")
    ended = {} if state == "pending" else {"due_at": None, "finished_at": NOW}
    Delivery.objects.create(site=site, event=event, endpoint=endpoint, state=state, **ended)


def test_the_overview_of_an_empty_desk_renders() -> None:
    page = home(sign_in())

    for fact in (
        "Queued 0 queue is empty",
        "Running 0",
        "Live workers 0 no worker is running, so jobs wait",
        "No jobs in the last 24 hours.",
    ):
        assert fact in page, fact


def test_the_overview_shows_queue_workers_deliveries_sites_and_providers(site: Site) -> None:
    acquire_lease()
    # The moment at which this module was loaded may be minutes ago.
    make_job(site, available_at=timezone.now() - timedelta(minutes=9, seconds=20))
    make_job(site, state="running", worker_id=new_uuid(), deadline_at=NOW)
    for state in ("succeeded", "succeeded", "succeeded", "failed"):
        make_job(site, state=state, finished_at=NOW)
    make_call(site, provider="good", outcome="ok", cost_pico_usd=25 * 10**9)
    make_call(site, provider="bad", outcome="error", error_kind="unavailable")
    make_call(site, provider="bad", outcome="timeout")
    make_call(site, provider="old", outcome="error", minutes_ago=61, cost_pico_usd=5 * 10**9)
    make_delivery(site, "pending")
    make_delivery(site, "exhausted")

    page = home(sign_in())

    work = ("Queued 1 oldest has waited 9 min", "Running 1", "Live workers 1 taking jobs")
    told = ("Pending deliveries 1", "Failed deliveries 1")
    for fact in (*work, *told, "Bakery 6 75 % $0.03", "bad failing 2 2 (100 %)", "unavailable", "good 1 0"):
        assert fact in page, fact
    assert "old" not in page.split("Providers last hour")[1]


def test_the_number_of_queries_does_not_grow_with_rows(site: Site) -> None:
    browser = sign_in()

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            home(browser)
        return len(queries)

    def add(site: Site) -> None:
        make_job(site, state="failed", finished_at=NOW)
        make_call(site, provider=site.slug, outcome="ok")
        make_delivery(site, "pending")

    add(site)
    count()
    few = count()
    for number in range(12):
        add(make_site(f"site-{number}"))

    assert count() == few


@pytest.mark.parametrize(
    ("permission", "shown", "hidden"),
    [
        (
            "jobs.view_job",
            ("Queued", "Jobs per hour", "Busiest sites"),
            ("$", "Cost", "Live workers", "Deliveries", "Providers"),
        ),
        ("metering.view_usageevent", ("Providers",), ("Queued", "Busiest", "Live workers")),
        ("jobs.view_workerlease", ("Live workers",), ("Queued", "Busiest", "Providers")),
        ("webhooks.view_delivery", ("Pending deliveries",), ("Queued", "Live workers", "Providers")),
        ("tenants.view_site", ("Choose a page from the menu",), ("Queued", "Live workers", "Providers", "Deliveries")),
    ],
)
def test_each_part_of_the_overview_requires_its_permission(
    site: Site, permission: str, shown: tuple[str, ...], hidden: tuple[str, ...]
) -> None:
    make_job(site, state="succeeded", finished_at=NOW)
    make_call(site, provider="p", outcome="ok", cost_pico_usd=10**12)

    html = sign_in(permission).get("/admin/").content.decode()

    page = words(html.split('class="nd-page"')[1])
    assert [text for text in shown if text not in page] == []
    assert [text for text in hidden if text in page] == []

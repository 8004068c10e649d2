"""Figures of the operators' overview."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection

from core.ids import new_uuid
from jobs.models import Job
from jobs.overview import busiest_sites, jobs_by_hour, queue_status
from jobs.periods import created_before, created_since, first_id_at
from tenants.models import Site
from tests.factories import make_job, make_site

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, 34, tzinfo=UTC)


def make_at(site: Site, at: datetime, state: str = "succeeded") -> Job:
    finished_at = None if state == "queued" else at
    noise = new_uuid().int & (1 << 80) - 1
    job_id = UUID(int=first_id_at(at).int | noise)
    return make_job(site, id=job_id, state=state, created_at=at, available_at=at, finished_at=finished_at)


def test_jobs_by_hour_has_24_hours_including_empty_ones(site: Site) -> None:
    for minutes, state in ((0, "queued"), (1, "succeeded"), (60, "failed"), (61, "expired"), (62, "canceled")):
        make_at(site, NOW - timedelta(minutes=minutes), state)
    make_at(site, NOW - timedelta(hours=24))

    found = jobs_by_hour(NOW)

    assert [hour.begins_at for hour in found][::23] == [NOW.replace(day=20, hour=13, minute=0), NOW.replace(minute=0)]
    assert [(hour.succeeded, hour.bad, hour.other) for hour in found[-2:]] == [(0, 2, 1), (1, 0, 1)]
    assert sum(hour.total for hour in found) == 5


def test_busiest_sites_are_sorted_and_at_most_ten(site: Site) -> None:
    for number in range(11):
        make_at(make_site(f"site-{number:02}"), NOW)
    for state in ("succeeded", "failed", "canceled", "succeeded"):
        make_at(site, NOW, state)
    make_at(site, NOW - timedelta(days=2))

    found = busiest_sites(NOW - timedelta(days=1))

    assert len(found) == 10
    assert (found[0].slug, found[0].jobs, found[0].succeeded, found[0].bad) == ("bakery", 4, 2, 1)


def test_queue_status_counts_jobs_and_has_the_longest_wait(site: Site) -> None:
    for hours_ago in (1, 3):
        make_at(site, NOW - timedelta(hours=hours_ago), "queued")
    make_job(site, state="running", worker_id=new_uuid(), deadline_at=NOW)
    make_at(site, NOW)

    found = queue_status()

    assert (found.queued, found.running, found.due_since) == (2, 1, NOW - timedelta(hours=3))


def test_overview_without_any_jobs() -> None:
    assert (queue_status().queued, queue_status().due_since, busiest_sites(NOW)) == (0, None, [])
    assert sum(hour.total for hour in jobs_by_hour(NOW)) == 0


def test_a_period_is_exact_although_ids_have_another_clock(site: Site) -> None:
    slow = make_job(site, id=first_id_at(NOW - timedelta(minutes=50)), created_at=NOW)
    fast = make_job(site, id=first_id_at(NOW + timedelta(minutes=50)), created_at=NOW - timedelta(microseconds=1))

    assert list(created_since(Job.objects.all(), NOW)) == [slow]
    assert list(created_before(Job.objects.all(), NOW)) == [fast]


def test_the_first_id_of_a_moment_is_below_every_id_created_then() -> None:
    assert first_id_at(datetime.now(UTC) - timedelta(milliseconds=1)) < new_uuid()
    assert first_id_at(datetime.now(UTC) + timedelta(seconds=60)) > new_uuid()
    assert first_id_at(datetime(1960, 1, 1, tzinfo=UTC)) == UUID(int=0)


def test_a_period_is_read_by_the_index_of_ids(site: Site) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")

    plan = created_since(Job.objects.order_by(), NOW).explain()

    assert "Index" in plan
    assert "id >=" in plan.split("Index Cond:")[1].splitlines()[0]

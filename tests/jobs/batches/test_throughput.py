"""The throughput of batches, and estimates of the remaining time and the total cost."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from core.ids import new_uuid
from jobs.batches import throughput as module
from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.batches.throughput import BatchThroughput, estimate_time_left, estimate_total_cost, measure_throughput
from jobs.models import Batch
from tenants.models import Site
from tests.factories import make_batch, make_job


def make_ended(batch: Batch, seconds_ago: float, state: str = "succeeded", **fields: Any) -> None:
    ended_at = Now() - timedelta(seconds=seconds_ago)
    make_job(batch.site, batch=batch, custom_id=str(new_uuid()), state=state, finished_at=ended_at, **fields)


def started(minutes_ago: int) -> Any:
    return Now() - timedelta(minutes=minutes_ago)


@pytest.mark.django_db
def test_the_throughput_is_that_of_the_last_three_minutes(site: Site) -> None:
    batch = make_batch(site, in_progress_at=started(60))
    for seconds, state in ((1, "succeeded"), (100, "failed"), (170, "succeeded"), (190, "succeeded"), (5, "canceled")):
        make_ended(batch, seconds, state)
    make_ended(make_batch(site), 1)
    batch.refresh_from_db()

    found = measure_throughput(batch)

    assert (found.ended, found.span) == (3, timedelta(minutes=3))
    assert found.per_minute == 1


@pytest.mark.django_db
def test_a_batch_that_has_just_started_is_measured_from_its_start(site: Site) -> None:
    batch = make_batch(site, in_progress_at=started(1))
    for _ in range(4):
        make_ended(batch, 10)
    batch.refresh_from_db()

    assert measure_throughput(batch).per_minute == pytest.approx(4, rel=0.05)


@pytest.mark.django_db
def test_only_the_latest_members_are_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 4)
    batch = make_batch(site, in_progress_at=started(60))
    for seconds in (2, 4, 6, 8, 100, 150):
        make_ended(batch, seconds)
    batch.refresh_from_db()

    found = measure_throughput(batch)

    assert found.ended == 4
    assert found.span.total_seconds() == pytest.approx(8, abs=1)


@pytest.mark.django_db
def test_a_batch_without_ended_members_has_no_estimate(site: Site) -> None:
    found = measure_throughput(make_batch(site, in_progress_at=None))

    assert (found.ended, found.per_minute) == (0, 0)


@pytest.mark.django_db
def test_the_throughput_is_read_by_the_index_on_finished_at(site: Site) -> None:
    batch = make_batch(site)
    values: dict[str, Any] = {"site_id": batch.site_id, "batch_id": batch.id, "window": module.WINDOW, "most": 1000}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {module.RECENT}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "Index Scan Backward using job_not_erased" in plan


@pytest.mark.parametrize(
    ("counts", "ended", "minutes"),
    [
        (MemberCounts(queued=30, succeeded=70), 30, 3),
        (MemberCounts(queued=20, running=10, failed=70), 30, 3),
        (MemberCounts(succeeded=100), 30, None),
        (MemberCounts(queued=30), 0, None),
        (MemberCounts(queued=30), 2, None),
    ],
)
def test_the_time_left_is_extrapolated_from_the_throughput(
    counts: MemberCounts, ended: int, minutes: int | None
) -> None:
    wanted = None if minutes is None else timedelta(minutes=minutes)

    assert estimate_time_left(counts, BatchThroughput(ended, timedelta(minutes=3))) == wanted


def test_a_time_left_of_ages_is_capped() -> None:
    assert estimate_time_left(MemberCounts(queued=10**9), BatchThroughput(3, timedelta(days=3650))) == timedelta(
        days=36500
    )


@pytest.mark.parametrize(
    ("counts", "cost", "in_all"),
    [
        (MemberCounts(succeeded=10, queued=25, running=5), 100, 400),
        (MemberCounts(succeeded=10, failed=90), 100, 100),
        (MemberCounts(queued=9), 0, None),
        (MemberCounts(succeeded=9, queued=9), None, None),
    ],
)
def test_the_total_cost_is_extrapolated_from_the_cost_so_far(
    counts: MemberCounts, cost: int | None, in_all: int | None
) -> None:
    assert estimate_total_cost(counts, BatchUsage(cost)) == in_all

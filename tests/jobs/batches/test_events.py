"""`batch.progress` events: at most as often as requested, and only if something has changed."""

import json
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from jobs.batches.events import record_due_progress
from jobs.models import Batch
from tenants.models import Site
from tests.jobs.batches.making import end, make_batch
from webhooks.models import Event


def later(batch: Batch, seconds: int) -> None:
    """Let some seconds have passed since the batch started, and since its last event."""
    earlier = Now() - timedelta(seconds=seconds)
    Batch.objects.filter(id=batch.id).update(in_progress_at=earlier)
    Batch.objects.filter(id=batch.id, progress_sent_at__isnull=False).update(progress_sent_at=earlier)


def test_progress_is_recorded_when_it_is_due_and_has_changed(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 3, progress_seconds=10)
    end(batch, "r1")
    assert record_due_progress() == 0

    later(batch, 11)
    assert record_due_progress() == 1
    assert record_due_progress() == 0
    later(batch, 11)
    assert record_due_progress() == 0
    end(batch, "r2")
    assert record_due_progress() == 1

    first, second = Event.objects.order_by("id")
    assert (first.type, first.subject_id, first.is_terminal) == ("batch.progress", batch.id, False)
    assert json.loads(first.payload)["data"]["request_counts"] == {"total": 3, "completed": 1, "failed": 0}
    assert json.loads(second.payload)["data"]["request_counts"]["completed"] == 2


def test_a_batch_without_an_interval_has_no_progress_events(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    end(batch, "r1")
    later(batch, 1000)

    assert record_due_progress() == 0


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_record_progress_once(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2, progress_seconds=10)
    end(batch, "r1")
    later(batch, 11)
    start = threading.Barrier(4)

    def go() -> None:
        start.wait()
        record_due_progress()
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Event.objects.count() == 1

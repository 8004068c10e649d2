"""Canceling and expiring batches: in chunks, until no member is left, with one event."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from jobs.batches import cancel as stop
from jobs.batches.cancel import cancel, stop_members
from jobs.batches.finalize import finalize_ended
from jobs.batches.maintenance import MaintenanceReport, run_maintenance
from jobs.batches.results import result_lines
from jobs.errors import BatchEnded, BatchNotFound
from jobs.models import Batch, BatchState, Job, JobState
from jobs.worker.claim import claim
from jobs.worker.leases import acquire_lease
from tenants.models import Site
from tests.factories import make_site
from tests.jobs.batches.making import end, make_batch, states_of
from webhooks.models import Event


def overdue(batch: Batch) -> None:
    """Let the completion window of a batch be over."""
    Batch.objects.filter(id=batch.id).update(expires_at=Now() - timedelta(seconds=1))


def codes_of(batch: Batch) -> list[str]:
    batch.refresh_from_db()
    return [line.decode().partition('"code":"')[2].partition('"')[0] for line in result_lines(batch)]


def test_canceling_a_batch_ends_queued_members_and_stops_running_ones(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 3)
    claim(acquire_lease(), 1)

    canceled = cancel(site, batch.public_id)

    assert (canceled.state, canceled.cancelling_at is not None) == (BatchState.CANCELLING, True)
    assert states_of(batch) == {"r1": "running", "r2": "canceled", "r3": "canceled"}
    assert Job.objects.get(batch=batch, custom_id="r1").cancel_requested_at is not None
    assert finalize_ended() == 0

    end(batch, "r1", worker_id=None, deadline_at=None)
    assert finalize_ended() == 1
    batch.refresh_from_db()
    assert (batch.state, batch.completed, batch.failed, batch.canceled) == (BatchState.CANCELLED, 1, 2, 2)
    assert list(Event.objects.values_list("type", flat=True)) == ["batch.cancelled"]
    assert codes_of(batch) == ["", "batch_cancelled", "batch_cancelled"]


def test_canceling_a_batch_is_idempotent(site: Site, desk_route: None) -> None:
    batch = make_batch(site)
    first = cancel(site, batch.public_id)

    assert cancel(site, batch.public_id).cancelling_at == first.cancelling_at
    finalize_ended()
    assert cancel(site, batch.public_id).state == BatchState.CANCELLED


def test_an_ended_batch_cannot_be_canceled(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    end(batch, "r1")
    finalize_ended()

    with pytest.raises(BatchEnded, match="completed"):
        cancel(site, batch.public_id)
    with pytest.raises(BatchNotFound):
        cancel(make_site("florist"), batch.public_id)


def test_members_that_return_to_the_queue_of_a_canceled_batch_are_canceled(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    cancel(site, batch.public_id)
    Job.objects.filter(custom_id="r2").update(state=JobState.QUEUED, finished_at=None)

    assert stop_members() == 1
    assert states_of(batch) == {"r1": "canceled", "r2": "canceled"}


def test_an_expired_batch_expires_its_unfinished_members(site: Site, desk_route: None) -> None:
    batch, other = make_batch(site, 3), make_batch(site, 1)
    end(batch, "r1")
    overdue(batch)

    tended = run_maintenance()

    assert tended == MaintenanceReport(stopped=2, finalized=1, progress_events=0)
    batch.refresh_from_db()
    assert (batch.state, batch.completed, batch.failed, batch.expired) == (BatchState.EXPIRED, 1, 2, 2)
    assert batch.expired_at is not None
    assert codes_of(batch) == ["", "batch_expired", "batch_expired"]
    assert list(Event.objects.values_list("type", flat=True)) == ["batch.expired"]
    assert states_of(other) == {"r1": "queued"}


def test_members_that_ran_at_the_end_of_the_window_expire_too(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    claim(acquire_lease(), 1)
    overdue(batch)

    assert stop_members() == 1
    end(batch, "r1", JobState.CANCELED, worker_id=None, deadline_at=None)
    finalize_ended()

    batch.refresh_from_db()
    assert batch.state == BatchState.EXPIRED
    assert codes_of(batch) == ["batch_expired"]


def test_a_member_canceled_individually_does_not_stop_the_batch(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    end(batch, "r1", JobState.CANCELED, cancel_requested_at=Now())
    end(batch, "r2")
    finalize_ended()

    batch.refresh_from_db()
    assert batch.state == BatchState.COMPLETED
    assert codes_of(batch) == ["request_canceled", ""]


def test_many_members_are_stopped_in_chunks(site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "CHUNK_ROWS", 2)
    batch = make_batch(site, 5)

    cancel(site, batch.public_id)
    assert list(states_of(batch).values()).count("canceled") == 2
    stop_members()

    assert set(states_of(batch).values()) == {"canceled"}


def test_maintenance_without_work_does_nothing(site: Site) -> None:
    assert run_maintenance() == MaintenanceReport(stopped=0, finalized=0, progress_events=0)

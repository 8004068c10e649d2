"""Retrying the failed requests of a batch, and pausing batches."""

import threading

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from inference import routing
from inference.models import Route
from jobs.batches import retry
from jobs.batches.cancel import cancel
from jobs.batches.finalize import finalize_ended
from jobs.batches.pause import pause, resume
from jobs.batches.retry import retry_failed
from jobs.errors import BatchEnded, BatchNotRetryable
from jobs.models import BATCH_QUEUE, Batch, BatchState, Job, JobState, Pause
from jobs.worker.claim import claim
from jobs.worker.leases import acquire_lease
from tenants.errors import ModelNotAllowed
from tenants.grant import Grant
from tenants.models import Site
from tests.jobs.batches.making import end, make_batch, states_of


@pytest.fixture
def ended(site: Site, desk_route: None) -> Batch:
    """An ended batch in which r1 succeeded, and the others did not."""
    batch = make_batch(site, 4, priority=50, max_attempts=2, metadata={"night": "1"}, progress_seconds=60)
    end(batch, "r1")
    end(batch, "r2", JobState.FAILED)
    end(batch, "r3", JobState.EXPIRED)
    end(batch, "r4", JobState.CANCELED)
    finalize_ended()
    return Batch.objects.get(id=batch.id)


def test_members_without_success_become_a_new_batch(site: Site, ended: Batch) -> None:
    again = retry_failed(site, ended.public_id, request_id="req_2")

    assert (again.state, again.total, again.retry_of, again.model) == (BatchState.IN_PROGRESS, 3, ended, "desk")
    assert (again.priority, again.max_attempts, again.metadata) == (50, 2, {"night": "1"})
    assert states_of(again) == {"r2": "queued", "r3": "queued", "r4": "queued"}
    for job in Job.objects.filter(batch=again):
        old = Job.objects.get(batch=ended, custom_id=job.custom_id)
        assert (job.retry_of, job.payload, job.request_hash) == (old, old.payload, old.request_hash)
        assert (job.queue, job.provider, job.expires_at) == (BATCH_QUEUE, "sim-openai", again.expires_at)
        assert (job.request_id, job.max_attempts, job.attempt, job.error_code) == ("req_2", 2, 0, "")
    ended.refresh_from_db()
    assert ended.failed == 3


def test_members_of_the_new_batch_are_claimed_and_can_be_decrypted(site: Site, ended: Batch) -> None:
    retry_failed(site, ended.public_id)

    claimed = claim(acquire_lease(), 10)

    assert len(claimed) == 3
    assert all(b"rosebud" in (Job.objects.get(id=each.job_id).payload or b"") for each in claimed)


def test_a_batch_in_progress_or_without_failures_cannot_be_retried(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    with pytest.raises(BatchNotRetryable, match="still in progress"):
        retry_failed(site, batch.public_id)

    end(batch, "r1")
    finalize_ended()
    with pytest.raises(BatchNotRetryable, match="succeeded"):
        retry_failed(site, batch.public_id)


def test_a_batch_that_is_being_retried_cannot_be_retried(site: Site, ended: Batch) -> None:
    again = retry_failed(site, ended.public_id)

    with pytest.raises(BatchNotRetryable, match=again.public_id):
        retry_failed(site, ended.public_id)
    cancel(site, again.public_id)
    finalize_ended()

    assert retry_failed(site, ended.public_id).total == 3


@pytest.mark.django_db(transaction=True)
def test_concurrent_retries_create_one_batch(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    end(batch, "r1", JobState.FAILED)
    finalize_ended()
    start, refused = threading.Barrier(4), list[str]()

    def go() -> None:
        start.wait()
        try:
            retry_failed(site, batch.public_id)
        except BatchNotRetryable as error:
            refused.append(str(error))
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (again,) = Batch.objects.filter(retry_of=batch)
    assert len(refused) == 3
    assert all(again.public_id in words for words in refused)


def test_a_batch_with_a_request_that_is_no_longer_allowed_cannot_be_retried(site: Site, ended: Batch) -> None:
    with pytest.raises(ModelNotAllowed):
        retry_failed(site, ended.public_id, Grant("another"))
    Job.objects.filter(custom_id="r3").update(payload=None)
    with pytest.raises(BatchNotRetryable, match="erased"):
        retry_failed(site, ended.public_id)
    Job.objects.filter(custom_id="r3").delete()
    Route.objects.all().delete()
    routing.invalidate_cache()
    with pytest.raises(BatchNotRetryable, match="does not exist"):
        retry_failed(site, ended.public_id)
    assert Batch.objects.count() == 1


def test_a_member_that_cannot_be_decrypted_is_named(site: Site, ended: Batch) -> None:
    damaged = Job.objects.get(batch=ended, custom_id="r3")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE jobs_job SET payload = overlay(payload placing '\\x00'::bytea from 30 for 1) WHERE id = %s",
            [damaged.id],
        )

    with pytest.raises(BatchNotRetryable, match="'r3' cannot be retried"):
        retry_failed(site, ended.public_id)


def test_members_are_copied_in_steps_in_the_order_of_the_input_and_bounded(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STEP_ROWS", 2)
    batch = make_batch(site, 5)
    Job.objects.filter(batch=batch).update(state="failed", finished_at=Now())
    finalize_ended()

    with CaptureQueriesContext(connection) as queries:
        again = retry_failed(site, batch.public_id, Grant(max_tokens=40))

    assert sum(query["sql"].lstrip().startswith("INSERT INTO jobs_job ") for query in queries) == 3
    members = list(Job.objects.filter(batch=again).order_by("id"))
    assert [member.custom_id for member in members] == ["r1", "r2", "r3", "r4", "r5"]
    assert all(b'"max_completion_tokens":40' in (member.payload or b"") for member in members)


# Pausing


def test_members_of_a_paused_batch_are_not_claimed_until_it_is_resumed(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    worker_id = acquire_lease()

    pause(site, batch.public_id)
    pause(site, batch.public_id)
    assert Pause.objects.get().actor == "site bakery"
    assert claim(worker_id, 10) == []

    resume(site, batch.public_id)
    resume(site, batch.public_id)
    assert len(claim(worker_id, 10)) == 1


def test_an_ended_batch_cannot_be_paused(site: Site, ended: Batch) -> None:
    with pytest.raises(BatchEnded):
        pause(site, ended.public_id)

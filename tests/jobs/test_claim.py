"""Who runs what: one statement decides, for any number of workers."""

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from jobs.claim import claim
from jobs.leases import start_draining, take_lease
from jobs.models import Attempt, Job, JobState, WorkerLease
from jobs.payload import open_body
from tenants.models import Site
from tests.factories import make_job


def test_a_claimed_job_runs_in_the_worker_s_name(site: Site, worker_id: UUID) -> None:
    job = make_job(site, payload=b'{"model":"desk","n":1}')

    (found,) = claim(worker_id, 10)

    claimed = found.job
    assert (claimed.id, claimed.state, claimed.attempt, claimed.worker_id) == (job.id, "running", 1, worker_id)
    assert open_body(found.sealed_payload, 1) == {"model": "desk", "n": 1}
    assert claimed.deadline_at is not None
    assert claimed.deadline_at > timezone.now()
    attempt = Attempt.objects.get()
    assert (attempt.job_id, attempt.number, attempt.worker_id, attempt.ended_at) == (job.id, 1, worker_id, None)


def test_no_more_is_claimed_than_there_is_room_for(site: Site, worker_id: UUID) -> None:
    for _ in range(5):
        make_job(site)

    assert len(claim(worker_id, 3)) == 3
    assert len(claim(worker_id, 3)) == 2
    assert claim(worker_id, 3) == []


def test_urgent_jobs_go_first_and_then_the_oldest(site: Site, worker_id: UUID) -> None:
    normal = [make_job(site) for _ in range(2)]
    urgent = make_job(site, priority=10)

    assert [claimed.job.id for claimed in claim(worker_id, 10)] == [urgent.id, normal[0].id, normal[1].id]


def test_a_job_of_tomorrow_and_an_expired_one_are_left(site: Site, worker_id: UUID) -> None:
    make_job(site, available_at=timezone.now() + timedelta(hours=1))
    make_job(site, expires_at=timezone.now() - timedelta(seconds=1))
    make_job(site, queue="other")

    assert claim(worker_id, 10) == []


def test_a_worker_without_a_live_lease_claims_nothing(site: Site, worker_id: UUID) -> None:
    make_job(site)

    assert claim(uuid4(), 10) == []

    WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert claim(worker_id, 10) == []


def test_a_draining_worker_claims_nothing(site: Site, worker_id: UUID) -> None:
    make_job(site)
    start_draining(worker_id)

    assert claim(worker_id, 10) == []


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_never_get_the_same_job(site: Site) -> None:
    for _ in range(60):
        make_job(site)
    workers = [take_lease() for _ in range(6)]
    claimed: list[UUID] = []
    start = threading.Barrier(len(workers))

    def go(worker: UUID) -> None:
        start.wait()
        while claims := claim(worker, 7):
            claimed.extend(each.job.id for each in claims)
        connection.close()

    threads = [threading.Thread(target=go, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 60
    assert Job.objects.filter(state=JobState.RUNNING, attempt=1).count() == 60

"""Claims: which worker runs which job, in which order, with any number of workers."""

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection, transaction
from django.utils import timezone

from jobs.models import Attempt, Job, JobState, Pause, WorkerLease
from jobs.payload import decrypt_body
from jobs.worker.claim import CLAIM, claim, claim_parameters
from jobs.worker.fence import Fence
from jobs.worker.finish import finish
from jobs.worker.leases import acquire_lease, mark_draining
from jobs.worker.outcomes import AttemptCanceled
from tenants.models import Site
from tests.factories import make_batch, make_job, make_provider, make_site
from tests.polling import wait_for


def test_a_claimed_job_is_running_and_belongs_to_the_worker(site: Site, worker_id: UUID) -> None:
    job = make_job(site, payload=b'{"model":"desk","n":1}')

    (found,) = claim(worker_id, 10)

    assert (found.job_id, found.attempt, found.model) == (job.id, 1, "desk")
    claimed = Job.objects.get()
    assert (claimed.state, claimed.attempt, claimed.worker_id) == ("running", 1, worker_id)
    assert decrypt_body(found.encrypted_payload, 1) == {"model": "desk", "n": 1}
    assert claimed.deadline_at is not None
    assert claimed.deadline_at > timezone.now()
    attempt = Attempt.objects.get()
    assert (attempt.job_id, attempt.number, attempt.worker_id, attempt.ended_at) == (job.id, 1, worker_id, None)


def test_a_job_that_was_deferred_many_times_can_be_claimed(site: Site, worker_id: UUID) -> None:
    make_job(site, attempt=32_767)

    assert [claimed.attempt for claimed in claim(worker_id, 10)] == [32_768]


def test_no_more_jobs_are_claimed_than_the_limit(site: Site, worker_id: UUID) -> None:
    for _ in range(5):
        make_job(site)

    assert len(claim(worker_id, 3)) == 3
    assert len(claim(worker_id, 3)) == 2
    assert claim(worker_id, 3) == []


def test_urgent_jobs_go_first_and_then_the_oldest(site: Site, worker_id: UUID) -> None:
    normal = [make_job(site) for _ in range(2)]
    urgent = make_job(site, priority=10)

    assert [claimed.job_id for claimed in claim(worker_id, 10)] == [urgent.id, normal[0].id, normal[1].id]


def test_scheduled_and_expired_jobs_are_not_claimed(site: Site, worker_id: UUID) -> None:
    make_job(site, available_at=timezone.now() + timedelta(hours=1))
    make_job(site, expires_at=timezone.now() - timedelta(seconds=1))

    assert claim(worker_id, 10) == []


def test_a_worker_without_a_live_lease_claims_nothing(site: Site, worker_id: UUID) -> None:
    make_job(site)

    assert claim(uuid4(), 10) == []

    WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert claim(worker_id, 10) == []


def test_a_draining_worker_claims_nothing(site: Site, worker_id: UUID) -> None:
    make_job(site)
    mark_draining(worker_id)

    assert claim(worker_id, 10) == []


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_concurrently_never_get_the_same_job(site: Site) -> None:
    for _ in range(60):
        make_job(site)
    workers = [acquire_lease() for _ in range(6)]
    claimed: list[UUID] = []
    start = threading.Barrier(len(workers))

    def go(worker: UUID) -> None:
        start.wait()
        while claims := claim(worker, 7):
            claimed.extend(each.job_id for each in claims)
        connection.close()

    threads = [threading.Thread(target=go, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 60
    assert Job.objects.filter(state=JobState.RUNNING, attempt=1).count() == 60


# Fairness


def claimed_by_site(worker_id: UUID, limit: int) -> list[str]:
    """The sites of the next claimed jobs, in order."""
    slugs = dict(Site.objects.values_list("id", "slug"))
    return [slugs[claimed.site_id] for claimed in claim(worker_id, limit)]


def test_a_site_with_many_jobs_does_not_delay_a_site_with_few(site: Site, worker_id: UUID) -> None:
    for _ in range(50):
        make_job(site)
    florist = make_site("florist")
    for _ in range(3):
        make_job(florist)

    assert claimed_by_site(worker_id, 6) == ["bakery", "florist"] * 3


def test_the_site_with_fewer_running_jobs_comes_first(site: Site, worker_id: UUID) -> None:
    for _ in range(10):
        make_job(site)
    claim(worker_id, 5)
    florist = make_site("florist")
    for _ in range(8):
        make_job(florist)

    assert claimed_by_site(worker_id, 7) == ["florist"] * 5 + ["bakery", "florist"]


def test_priority_takes_precedence_over_fairness(site: Site, worker_id: UUID) -> None:
    make_job(make_site("florist"))
    for _ in range(3):
        make_job(site, priority=50)

    assert claimed_by_site(worker_id, 4) == ["bakery", "bakery", "bakery", "florist"]


def test_many_sites_take_turns(worker_id: UUID) -> None:
    sites = [make_site(f"site-{number}") for number in range(12)]
    for each in sites:
        for _ in range(5):
            make_job(each)

    assert len(set(claimed_by_site(worker_id, 12))) == 12
    rest = 0
    while found := claim(worker_id, 12):
        rest += len(found)
    assert rest == 48


# Caps


def test_no_more_jobs_of_a_site_run_than_its_cap(site: Site, worker_id: UUID) -> None:
    Site.objects.update(max_running_jobs=3)
    jobs = [make_job(site) for _ in range(5)]

    assert [claimed.job_id for claimed in claim(worker_id, 10)] == [job.id for job in jobs[:3]]
    assert claim(worker_id, 10) == []

    finish(Fence(jobs[0].id, 1, worker_id), AttemptCanceled(), [])
    assert [claimed.job_id for claimed in claim(worker_id, 10)] == [jobs[3].id]


def test_no_more_jobs_of_a_provider_run_than_its_cap(site: Site, worker_id: UUID) -> None:
    make_provider("slow", max_running_jobs=2)
    florist = make_site("florist")
    for each in (site, florist):
        for _ in range(3):
            make_job(each, provider="slow")
    make_job(site, provider="fast")

    assert sorted(claimed.provider for claimed in claim(worker_id, 10)) == ["fast", "slow", "slow"]
    assert claim(worker_id, 10) == []


@pytest.mark.django_db(transaction=True)
def test_a_cap_holds_for_any_number_of_concurrent_claims(site: Site) -> None:
    Site.objects.update(max_running_jobs=7)
    for _ in range(40):
        make_job(site)
    workers = [acquire_lease() for _ in range(6)]
    start = threading.Barrier(len(workers))

    def go(worker: UUID) -> None:
        start.wait()
        claim(worker, 5)
        connection.close()

    threads = [threading.Thread(target=go, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Job.objects.filter(state=JobState.RUNNING).count() == 7


# Pauses and queues


@pytest.mark.parametrize("what", ["site", "queue", "batch"])
def test_paused_jobs_are_not_claimed_until_they_are_resumed(site: Site, worker_id: UUID, what: str) -> None:
    batch = make_batch(site)
    member = make_job(site, queue="batch", batch=batch, custom_id="a")
    other = make_job(make_site("florist"))
    pause = Pause.objects.create(
        **{"site": site} if what == "site" else {what: {"queue": "batch", "batch": batch}[what]}
    )

    assert [claimed.job_id for claimed in claim(worker_id, 10)] == [other.id]

    pause.delete()
    assert [claimed.job_id for claimed in claim(worker_id, 10)] == [member.id]


def test_a_paused_batch_delays_neither_its_site_nor_another_batch(site: Site, worker_id: UUID) -> None:
    paused, other = make_batch(site), make_batch(site)
    for number in range(20):
        make_job(site, queue="batch", batch=paused, custom_id=str(number))
    wanted = [make_job(site, queue="batch", batch=other, custom_id="a"), make_job(site)]
    Pause.objects.create(batch=paused)

    assert {claimed.job_id for claimed in claim(worker_id, 10)} == {job.id for job in wanted}


def test_a_worker_serves_only_its_queues(site: Site, worker_id: UUID) -> None:
    make_job(site, queue="batch")
    mine = make_job(site)

    assert [claimed.job_id for claimed in claim(worker_id, 10, ["default", "other"])] == [mine.id]


@pytest.mark.django_db(transaction=True)
def test_a_locked_job_is_skipped(site: Site) -> None:
    held, free = make_job(site), make_job(site)
    worker_id, found = acquire_lease(), []

    def go() -> None:
        found.extend(claim(worker_id, 10))
        connection.close()

    with transaction.atomic():
        Job.objects.select_for_update().get(id=held.id)
        thread = threading.Thread(target=go)
        thread.start()
        thread.join(10)
        assert [claimed.job_id for claimed in found] == [free.id]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_freezes_during_a_large_claim_does_not_block_the_others(site: Site) -> None:
    for _ in range(60):
        make_job(site, payload=b"x" * 100_000)
    frozen, other = acquire_lease(), acquire_lease()
    its_connection = connection.copy()
    its_connection.connect()
    try:
        # It sends its claim, and never reads the answer.
        sent = psycopg.ClientCursor(its_connection.connection).mogrify(CLAIM, claim_parameters(frozen, 55, []))
        its_connection.connection.pgconn.send_query(sent.encode())
        wait_for(lambda: Job.objects.filter(worker_id=frozen).count() == 55)

        assert len(claim(other, 5)) == 5
    finally:
        its_connection.close()


def test_delayed_jobs_do_not_hide_ready_ones(site: Site, worker_id: UUID) -> None:
    for _ in range(30):
        make_job(site, available_at=timezone.now() + timedelta(hours=1))
        make_job(site, expires_at=timezone.now() - timedelta(seconds=1))
    ready = make_job(site)

    assert [claimed.job_id for claimed in claim(worker_id, 1)] == [ready.id]


def test_a_payload_is_returned_as_bytes_and_an_erased_one_as_none(site: Site, worker_id: UUID) -> None:
    make_job(site), make_job(site)
    Job.objects.filter(id=Job.objects.latest("id").id).update(payload=None)

    assert [type(claimed.encrypted_payload) for claimed in claim(worker_id, 2)] == [bytes, type(None)]

"""The sweep: jobs of lost workers, hung attempts, expired jobs, poison and quarantine."""

import threading
import tracemalloc
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from jobs.models import Attempt, Job, JobState, WorkerLease
from jobs.worker import sweep as sweep_module
from jobs.worker.claim import claim
from jobs.worker.fence import Fence
from jobs.worker.finish import finish
from jobs.worker.leases import HeldJob, acquire_lease, renew_lease
from jobs.worker.outcomes import AttemptFailed, AttemptSucceeded
from jobs.worker.sweep import SweepReport, sweep
from metering.models import UsageEvent
from tenants.models import Site
from tests.factories import make_job
from tests.jobs.running import claim_one
from webhooks.models import Event

BODY = b'{"model":"desk","messages":[{"role":"user","content":"one two three four five six seven eight"}]}'


def run_with_a_new_worker() -> Job:
    return claim_one(acquire_lease())


def let_leases_expire() -> None:
    WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))


def open_call(job_id: UUID) -> UsageEvent:
    """The usage event of an open call."""
    return UsageEvent(
        dedupe_key=str(job_id), site=Site.objects.get(), job_id=job_id, attempt=1, call=1, provider="sim-openai",
        price_list="openai", model="desk", upstream_model="gpt-4o-mini",
    )  # fmt: skip


@pytest.fixture
def running(site: Site) -> Job:
    """A running job."""
    make_job(site, payload=BODY)
    return run_with_a_new_worker()


def test_a_job_of_a_live_worker_is_not_swept(running: Job) -> None:
    assert sweep() == SweepReport()

    running.refresh_from_db()
    assert running.state == JobState.RUNNING


@pytest.mark.parametrize("row", ["expired", "gone"])
def test_the_job_of_a_lost_worker_is_requeued_immediately(running: Job, row: str) -> None:
    if row == "expired":
        let_leases_expire()
    else:
        WorkerLease.objects.all().delete()

    assert sweep() == SweepReport(lost=1)

    running.refresh_from_db()
    assert (running.state, running.worker_id, running.crash_count, running.error_count) == ("queued", None, 1, 0)
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.error_code) == ("lost", "worker_lost")
    assert run_with_a_new_worker().attempt == 2
    assert not Event.objects.exists()


def test_the_open_call_of_a_lost_job_is_recorded_as_lost_with_an_estimate(running: Job) -> None:
    open_call(running.id).save()
    let_leases_expire()

    sweep()

    event = UsageEvent.objects.get()
    assert (event.outcome, event.estimated, event.billable) == ("lost", True, False)
    assert event.input_tokens > 5
    assert event.cost_pico_usd == event.input_tokens * 150_000


def test_a_lost_call_is_priced_in_the_requested_tier(running: Job) -> None:
    call = open_call(running.id)
    call.upstream_model, call.tier = "gpt-6-luna", "flex"
    call.save()
    let_leases_expire()

    sweep()

    event = UsageEvent.objects.get()
    assert (event.tier, event.cost_pico_usd) == ("flex", event.input_tokens * 50_000)


def die_with(count: int) -> list[Job]:
    """Let a new worker claim up to `count` jobs, and lose it."""
    claimed = claim(acquire_lease(), count)
    let_leases_expire()
    sweep()
    return list(Job.objects.filter(id__in=[each.job_id for each in claimed]).order_by("id"))


def test_none_of_several_jobs_that_were_lost_twice_together_is_poison_yet(site: Site) -> None:
    for _ in range(3):
        make_job(site, payload=BODY)
    die_with(3)

    again = die_with(3)

    assert [(job.state, job.crash_count) for job in again] == [("queued", 2)] * 3
    assert not Event.objects.exists()


def test_suspects_are_judged_together_however_many_jobs_were_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "MAX_ROWS", 3)
    for _ in range(2):
        for _ in range(2):
            make_job(site, payload=BODY, crash_count=1)
        claim(acquire_lease(), 2)
    let_leases_expire()

    assert [sweep() for _ in range(3)] == [SweepReport(lost=2), SweepReport(lost=2), SweepReport()]

    assert set(Job.objects.values_list("state", "crash_count")) == {("queued", 2)}


def test_a_single_suspect_among_new_jobs_is_poison(site: Site) -> None:
    make_job(site, payload=BODY)
    die_with(1)
    for _ in range(3):
        make_job(site, payload=BODY)

    assert [(job.state, job.crash_count) for job in die_with(4)] == [("failed", 2)] + [("queued", 1)] * 3


def test_a_worker_runs_one_job_in_quarantine_at_a_time(site: Site) -> None:
    jobs = [make_job(site, payload=BODY, crash_count=2) for _ in range(3)]
    fresh = make_job(site, payload=BODY)
    worker = acquire_lease()

    assert {claimed.job_id for claimed in claim(worker, 10)} == {jobs[0].id, fresh.id}
    assert claim(worker, 10) == []
    assert [claimed.job_id for claimed in claim(acquire_lease(), 10)] == [jobs[1].id]

    finish(Fence(jobs[0].id, 1, worker), AttemptFailed("rejected", "no"), [])
    assert [claimed.job_id for claimed in claim(worker, 10)] == [jobs[2].id]


def test_a_poison_job_is_found_among_many_and_no_other_fails(site: Site) -> None:
    jobs = [make_job(site, payload=BODY) for _ in range(6)]
    deadly = jobs[3].id

    for _ in range(20):
        worker = acquire_lease()
        claimed = claim(worker, 10)
        if deadly in [each.job_id for each in claimed]:
            let_leases_expire()
            sweep()
            continue
        for each in claimed:
            finish(Fence(each.job_id, each.attempt, worker), AttemptSucceeded(b"{}"), [])

    ends = dict(Job.objects.values_list("id", "error_code"))
    assert ends.pop(deadly) == "poison"
    assert set(ends.values()) == {""}
    assert Job.objects.filter(state=JobState.SUCCEEDED).count() == 5
    assert Job.objects.get(id=deadly).crash_count == 3


def test_a_job_that_killed_two_workers_is_poison(running: Job) -> None:
    let_leases_expire()
    sweep()
    run_with_a_new_worker()
    let_leases_expire()

    sweep()

    running.refresh_from_db()
    assert (running.state, running.error_code, running.crash_count) == ("failed", "poison", 2)
    assert Event.objects.get().type == "job.failed"
    assert claim(acquire_lease(), 1) == []


def test_an_attempt_past_its_deadline_is_taken_from_a_live_worker(running: Job) -> None:
    Job.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))

    sweep()

    running.refresh_from_db()
    assert (running.state, running.error_count, running.crash_count) == ("queued", 1, 0)
    assert Attempt.objects.get().error_code == "deadline"


def test_a_job_whose_attempts_all_hang_fails(running: Job) -> None:
    Job.objects.update(deadline_at=timezone.now() - timedelta(seconds=1), max_attempts=1)

    sweep()

    running.refresh_from_db()
    assert (running.state, running.error_code) == ("failed", "deadline")


def test_a_lost_job_with_a_requested_cancel_is_canceled(running: Job) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())
    let_leases_expire()

    sweep()

    running.refresh_from_db()
    assert running.state == JobState.CANCELED
    assert Event.objects.get().type == "job.canceled"


def test_a_queued_job_past_its_expiry_expires_with_an_event(site: Site) -> None:
    job = make_job(site, expires_at=timezone.now() - timedelta(seconds=1))

    assert sweep() == SweepReport(expired=1)

    job.refresh_from_db()
    assert (job.state, job.error_code) == ("expired", "expired")
    assert Event.objects.get().type == "job.expired"


def test_a_lost_job_with_an_unreadable_payload_is_swept(site: Site) -> None:
    make_job(site, payload=b'{"model":"desk"}')
    make_job(site)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET payload = 'x' WHERE id = (SELECT max(id::text)::uuid FROM jobs_job)")
    claim(acquire_lease(), 2)
    UsageEvent.objects.bulk_create(open_call(job_id) for job_id in Job.objects.values_list("id", flat=True))
    let_leases_expire()

    assert sweep() == SweepReport(lost=2)
    assert set(UsageEvent.objects.values_list("outcome", "estimated")) == {("lost", True)}


def test_an_expired_lease_is_never_revived(site: Site, worker_id: UUID) -> None:
    assert renew_lease(worker_id) is not None
    let_leases_expire()

    assert renew_lease(worker_id) is None


def test_a_heartbeat_returns_requested_cancels(running: Job) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())
    assert running.worker_id is not None

    renewal = renew_lease(running.worker_id)

    assert renewal is not None
    assert renewal.held == (HeldJob(running.id, 1, is_cancel_requested=True),)


@pytest.mark.django_db(transaction=True)
def test_only_one_worker_sweeps_at_a_time(site: Site) -> None:
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sweep_module.SWEEP_LOCK])
            holding.set()
            done.wait(10)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(10)

    assert sweep() is None

    done.set()
    holder.join()
    assert sweep() == SweepReport()


def test_prompts_of_a_lost_workers_jobs_are_never_all_in_memory(site: Site) -> None:
    jobs = [make_job(site, payload=BODY.replace(b"eight", b"x" * 200_000)) for _ in range(60)]
    claim(acquire_lease(), 60)
    UsageEvent.objects.bulk_create([open_call(job.id) for job in jobs])
    let_leases_expire()

    tracemalloc.start()
    try:
        assert sweep() == SweepReport(lost=60)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert not UsageEvent.objects.filter(input_tokens__lt=50_000).exists()


@pytest.mark.django_db(transaction=True)
def test_expired_leases_are_deleted_after_a_while(worker_id: UUID) -> None:
    WorkerLease.objects.update(expires_at=timezone.now() - timedelta(minutes=2))

    sweep()

    assert not WorkerLease.objects.exists()


@pytest.mark.parametrize("deadline", [timedelta(minutes=5), timedelta(minutes=-5)])
def test_after_an_outage_no_attempt_is_lost_before_workers_could_send_heartbeats(
    running: Job, deadline: timedelta
) -> None:
    let_leases_expire()
    Job.objects.update(deadline_at=timezone.now() + deadline)

    assert sweep(heartbeats_possible=False) == SweepReport()
    assert sweep(recovery_seconds=10**9) == SweepReport()
    running.refresh_from_db()
    assert (running.state, running.crash_count, running.error_count) == ("running", 0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_job_that_got_a_new_worker_while_the_sweep_waited_is_not_swept(site: Site) -> None:
    make_job(site)
    job, held, go_on = run_with_a_new_worker(), threading.Event(), threading.Event()
    WorkerLease.objects.all().delete()

    def claim_again() -> None:
        with transaction.atomic():
            Job.objects.filter(id=job.id).update(worker_id=acquire_lease(), attempt=2)
            held.set()
            go_on.wait(10)
        connection.close()

    other = threading.Thread(target=claim_again)
    other.start()
    assert held.wait(10)
    threading.Timer(0.5, go_on.set).start()
    with transaction.atomic():
        Job.objects.select_for_update().get(id=job.id)
        assert sweep() == SweepReport()
    other.join()

    job.refresh_from_db()
    assert (job.state, job.attempt, job.crash_count) == ("running", 2, 0)

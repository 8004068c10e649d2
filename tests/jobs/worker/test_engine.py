"""The job engine, with real Postgres, a real event loop in a thread, and scripted providers."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, InternalError, OperationalError, connection, transaction
from django.utils import timezone
from pytest_django import Settings
from structlog.testing import capture_logs

from core.crypto import new_key
from core.redis import RedisUnavailable
from inference import routing
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker, NoCircuitBreaker
from inference.models import ProviderAccount
from inference.routing import Target
from jobs import payload
from jobs.cancel import cancel
from jobs.models import Attempt, Batch, Job, JobState, WorkerLease
from jobs.worker import execute
from jobs.worker.claim import claim
from jobs.worker.engine import MAX_STARTING, JobEngine
from jobs.worker.finish import FinishRequest, finish_all
from jobs.worker.outcomes import AttemptSucceeded
from jobs.worker.sweep import sweep
from metering.models import UsageEvent
from providers import errors
from providers.scripted_provider import ScriptedProvider
from providers.types import AnswerFinished, Completion, FinishReason, InferenceRequest, TextDelta, Usage
from tenants.models import Site
from tests.factories import make_batch, make_job
from tests.polling import wait_for
from webhooks.models import Event

pytestmark = pytest.mark.django_db(transaction=True)

BODY = b'{"model":"desk","messages":[{"role":"user","content":"Say hello."}]}'
HELLO = (TextDelta("Hello"), AnswerFinished(FinishReason.STOP, Usage(9, 1)))


class Gate:
    """Blocks every call of a provider until it is opened; `reached` is set by the first call."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    async def __call__(self, _: InferenceRequest) -> None:
        self.reached.set()
        while not self.opened.is_set():  # noqa: ASYNC110 (opened from another thread)
            await asyncio.sleep(0.005)


@contextmanager
def working(provider: ScriptedProvider, breaker: CircuitBreaker = NO_CIRCUIT_BREAKER) -> Iterator[JobEngine]:
    """A running engine, in a thread as in a worker process. At the end it shuts down gracefully."""
    started = threading.Event()
    engines: list[JobEngine] = []

    async def main() -> None:
        engine = JobEngine(lambda spec: provider, breaker)
        engines.append(engine)
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(0)
        started.set()
        await running

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    assert started.wait(10)
    try:
        yield engines[0]
    finally:
        engines[0].stop()
        thread.join(40)
        assert not thread.is_alive()


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are more frequent, for tests that wait for one; a lease lasts as long as usual."""
    monkeypatch.setattr("jobs.worker.leases.HEARTBEAT_SECONDS", 0.3)


def queued(site: Site, **fields: Any) -> Job:
    return make_job(site, payload=BODY, **fields)


def ended(job: Job) -> Job:
    """The job, once it has ended."""
    return wait_for(lambda: Job.objects.filter(id=job.id, finished_at__isnull=False).first())


def test_a_job_is_run_and_its_answer_stored_in_the_wire_format_of_its_kind(site: Site, desk_route: None) -> None:
    job = queued(site)

    with working(ScriptedProvider(HELLO)):
        done = ended(job)

    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)
    assert done.result is not None
    assert b'"content":"Hello"' in done.result
    assert b'"object":"chat.completion"' in done.result
    assert UsageEvent.objects.get().billable
    assert Event.objects.get().type == "job.succeeded"


def test_several_choices_are_stored_as_the_provider_wrote_them(site: Site, desk_route: None) -> None:
    job = make_job(site, payload=BODY.replace(b"}]}", b'}],"n":2}'))
    written = b'{"choices":[{"index":0},{"index":1}]}'

    with working(
        ScriptedProvider(Completion("c", "m", "A", FinishReason.STOP, Usage(9, 4), other_choices=("B",), body=written))
    ):
        done = ended(job)

    assert (done.state, done.result) == (JobState.SUCCEEDED, written)
    assert UsageEvent.objects.get().output_tokens == 4


def test_a_job_that_no_provider_is_capable_of_any_more_fails_without_a_call(site: Site, desk_route: None) -> None:
    job = make_job(site, payload=BODY.replace(b"}]}", b'}],"n":2}'))
    ProviderAccount.objects.update(dialect="anthropic")
    routing.invalidate_cache()

    with working(ScriptedProvider()):
        done = ended(job)

    assert (done.state, done.error_code) == (JobState.FAILED, "invalid_body")
    assert not UsageEvent.objects.exists()


def test_a_retry_without_budget_waits_longer_each_time(site: Site, desk_route: None, settings: Settings) -> None:
    settings.RETRY_BUDGET_PERCENT = settings.RETRY_BUDGET_FLOOR = 0
    job = queued(site, attempt=9, error_count=1)

    with working(ScriptedProvider()):
        wait_for(lambda: Job.objects.filter(id=job.id, state="queued", error_code="retry_budget_exhausted").exists())

    job.refresh_from_db()
    assert (job.attempt, job.error_count) == (10, 1)
    assert job.available_at - timezone.now() > timedelta(seconds=60)


class ProvidersInCooldown(NoCircuitBreaker):
    """A circuit breaker that is open for all providers."""

    async def allows(self, target: Target) -> bool:
        return False

    def refusal(self, target: Target) -> errors.ProviderError:
        return errors.ProviderOverloaded("It is in cooldown.", retry_after_seconds=100)


def test_a_job_whose_providers_are_in_cooldown_is_deferred_without_an_error(site: Site, desk_route: None) -> None:
    job = queued(site)

    with working(ScriptedProvider(), ProvidersInCooldown()):
        wait_for(lambda: Job.objects.filter(id=job.id, state="queued", error_code="providers_in_cooldown").exists())

    job.refresh_from_db()
    assert job.error_count == 0
    assert job.available_at - timezone.now() > timedelta(seconds=60)


def test_many_jobs_are_in_flight_at_once(site: Site, desk_route: None, settings: Settings) -> None:
    settings.JOB_SLOTS = 40
    jobs = [queued(site) for _ in range(40)]
    gate = Gate()

    with working(ScriptedProvider(*[HELLO] * 40, before=gate)):
        wait_for(lambda: UsageEvent.objects.filter(outcome="open").count() == 40)
        gate.opened.set()
        for job in jobs:
            ended(job)

    assert Job.objects.filter(state=JobState.SUCCEEDED).count() == 40


def test_no_more_jobs_run_than_there_are_slots(site: Site, desk_route: None, settings: Settings) -> None:
    settings.JOB_SLOTS = 3
    jobs = [queued(site) for _ in range(8)]
    gate, most = Gate(), 0

    with working(ScriptedProvider(*[HELLO] * 8, before=gate)):
        wait_for(lambda: Job.objects.filter(state=JobState.RUNNING).count() == 3)
        most = Job.objects.filter(attempt__gt=0).count()
        gate.opened.set()
        for job in jobs:
            ended(job)

    assert most == 3


def test_the_number_of_starting_jobs_is_limited(site: Site, desk_route: None) -> None:
    for _ in range(MAX_STARTING + 6):
        queued(site)

    with working(ScriptedProvider(*[HELLO] * (MAX_STARTING + 6))):
        with transaction.atomic(), connection.cursor() as cursor:
            # No usage record can be opened, so that no job proceeds beyond its start.
            cursor.execute("LOCK TABLE metering_usageevent IN SHARE ROW EXCLUSIVE MODE")
            wait_for(lambda: Job.objects.filter(state=JobState.RUNNING).count() == MAX_STARTING)
            beat = WorkerLease.objects.get().expires_at
            wait_for(lambda: WorkerLease.objects.get().expires_at > beat)
            started = Job.objects.filter(attempt__gt=0).count()
        wait_for(lambda: Job.objects.filter(state=JobState.SUCCEEDED).count() == MAX_STARTING + 6)

    assert started == MAX_STARTING


def test_the_doorbell_starts_a_job_immediately(site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.worker.engine.POLL_SECONDS", 60.0)

    with working(ScriptedProvider(HELLO)) as engine:
        wait_for(lambda: WorkerLease.objects.exists())
        job = queued(site)
        engine.wake()
        assert ended(job).state == JobState.SUCCEEDED


def test_without_the_doorbell_a_job_is_found_within_seconds(site: Site, desk_route: None) -> None:
    with working(ScriptedProvider(HELLO)):
        wait_for(lambda: WorkerLease.objects.exists())
        assert ended(queued(site)).state == JobState.SUCCEEDED


def test_a_failed_attempt_is_followed_by_another(site: Site, desk_route: None) -> None:
    busy = errors.ProviderOverloaded("busy", 503)
    job = queued(site)

    with working(ScriptedProvider(busy, busy, HELLO)):
        done = ended(job)

    assert (done.state, done.attempt, done.error_count) == (JobState.SUCCEEDED, 2, 1)
    assert list(Attempt.objects.order_by("number").values_list("outcome", flat=True)) == ["error", "ok"]
    assert [event.outcome for event in UsageEvent.objects.order_by("id")] == ["error", "error", "ok"]


def test_a_rejected_job_fails_immediately_with_the_providers_message(site: Site, desk_route: None) -> None:
    job = queued(site)

    with working(ScriptedProvider(errors.RequestRejected("`temperature` must be below 2.", 400, "invalid_value"))):
        done = ended(job)

    assert (done.state, done.error_code, done.attempt) == (JobState.FAILED, "rejected", 1)
    assert done.error_message == "`temperature` must be below 2."
    assert Event.objects.get().type == "job.failed"


def test_a_job_whose_route_is_gone_fails_with_a_reason(site: Site) -> None:
    job = queued(site)

    with working(ScriptedProvider()):
        done = ended(job)

    assert (done.state, done.error_code) == (JobState.FAILED, "no_provider")
    assert "desk" in done.error_message


def test_a_job_that_cannot_be_decrypted_fails_and_does_not_block_the_others(site: Site, desk_route: None) -> None:
    broken, good = queued(site), queued(site)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET payload = payload || 'x' WHERE id = %s", [broken.id])

    with working(ScriptedProvider(HELLO)):
        done = ended(good)
        failed = wait_for(lambda: Job.objects.defer("payload").filter(id=broken.id, state="failed").first())

    assert done.state == JobState.SUCCEEDED
    assert failed.error_code == "invalid_body"


def test_canceling_a_running_job_closes_its_call_and_bills_nothing(
    site: Site, desk_route: None, fast_heartbeat: None
) -> None:
    job, gate = queued(site), Gate()

    with working(ScriptedProvider(HELLO, before=gate)):
        assert gate.reached.wait(10)
        cancel(site, job.public_id)
        done = ended(job)

    assert done.state == JobState.CANCELED
    assert list(UsageEvent.objects.values_list("outcome", "billable")) == [("canceled", False)]
    assert Event.objects.get().type == "job.canceled"


def test_a_worker_that_lost_its_lease_releases_its_jobs_and_acquires_a_new_one(
    site: Site, desk_route: None, fast_heartbeat: None
) -> None:
    job, gate = queued(site), Gate()

    with working(ScriptedProvider(HELLO, HELLO, before=gate)):
        assert gate.reached.wait(10)
        first: UUID = WorkerLease.objects.get().worker_id
        WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        wait_for(lambda: Job.objects.filter(id=job.id).exclude(worker_id=first).exists())
        gate.opened.set()
        done = ended(job)

    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    assert UsageEvent.objects.filter(billable=True).get().attempt == 2
    assert Event.objects.count() == 1


def test_a_stopping_worker_finishes_what_ends_within_the_drain_time(site: Site, desk_route: None) -> None:
    job, gate = queued(site), Gate()

    with working(ScriptedProvider(HELLO, before=gate)) as engine:
        assert gate.reached.wait(10)
        engine.stop()
        wait_for(lambda: WorkerLease.objects.filter(draining=True).exists())
        gate.opened.set()

    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert not WorkerLease.objects.exists()


def test_a_stopping_worker_releases_jobs_that_do_not_end_in_time(
    site: Site, desk_route: None, settings: Settings
) -> None:
    settings.JOB_DRAIN_SECONDS = 0
    job, gate = queued(site), Gate()

    with working(ScriptedProvider(HELLO, before=gate)):
        assert gate.reached.wait(10)

    job.refresh_from_db()
    assert (job.state, job.crash_count, job.error_count) == (JobState.QUEUED, 0, 0)
    assert Attempt.objects.get().outcome == "released"
    assert list(UsageEvent.objects.values_list("outcome", "billable")) == [("canceled", False)]


def test_broken_connections_to_the_database_lose_no_answer(site: Site, desk_route: None) -> None:
    job, gate = queued(site), Gate()

    with working(ScriptedProvider(HELLO, before=gate)):
        assert gate.reached.wait(10)
        break_all_other_connections()
        gate.opened.set()
        done = ended(job)

    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)


def test_no_kind_of_database_error_ends_the_engine(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a failover Postgres is read-only for a while, which is not an OperationalError."""
    failures = iter([InternalError("read-only transaction")] * 3)

    def stumbling(act: Callable[..., Any]) -> Callable[..., Any]:
        def stumble(*args: Any, **kwargs: Any) -> Any:
            for error in failures:
                raise error
            return act(*args, **kwargs)

        return stumble

    monkeypatch.setattr("jobs.worker.engine.claim", stumbling(claim))
    monkeypatch.setattr("jobs.worker.engine.sweep", stumbling(sweep))
    job = queued(site)

    with working(ScriptedProvider(HELLO)):
        assert ended(job).state == JobState.SUCCEEDED
    assert next(failures, None) is None


@pytest.mark.parametrize("has_lease", [False, True])
def test_no_recovery_is_logged_while_every_query_fails(monkeypatch: pytest.MonkeyPatch, *, has_lease: bool) -> None:
    """Neither the watchers, which only Redis knows, nor a claim without a lease or a free slot end an outage."""
    failed = threading.Event()

    def fail(*_: Any, **__: Any) -> None:
        failed.set()
        raise OperationalError("the database is unavailable")

    for query in ("claim", "sweep", "run_maintenance", "expand_one", "retention.run_retention", "leases.release_lease"):
        monkeypatch.setattr(f"jobs.worker.engine.{query}", fail)
    monkeypatch.setattr("jobs.worker.engine.leases.mark_draining", fail)
    if not has_lease:
        monkeypatch.setattr("jobs.worker.leases.acquire_lease", fail)
    for pause in ("POLL_SECONDS", "WATCHER_POLL_SECONDS"):
        monkeypatch.setattr(f"jobs.worker.engine.{pause}", 0.02)
    monkeypatch.setattr("jobs.worker.engine.OUTAGE_RECOVERY_SECONDS", 0)
    monkeypatch.setattr("jobs.worker.slot_pool.SlotPool.free", lambda *_: 0)

    with capture_logs() as logs, working(ScriptedProvider()):
        assert failed.wait(10)
        threading.Event().wait(0.3)

    names = [entry["event"] for entry in logs]
    assert (names.count("worker_database_unavailable"), names.count("worker_database_recovered")) == (1, 0)


def test_an_outage_of_redis_is_logged_once_by_the_watchers_and_not_as_one_of_the_database(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up, is_available = threading.Semaphore(0), threading.Event()

    async def find(_: Any) -> set[UUID]:
        looked_up.release()
        if not is_available.is_set():
            raise RedisUnavailable("ConnectionError")
        return set()

    monkeypatch.setattr("jobs.worker.attempt_streams.find_watched", find)
    monkeypatch.setattr("jobs.worker.engine.WATCHER_POLL_SECONDS", 0.02)
    job, gate = queued(site), Gate()

    with capture_logs() as logs, working(ScriptedProvider(HELLO, before=gate)):
        for _ in range(3):
            assert looked_up.acquire(timeout=10)
        is_available.set()
        wait_for(lambda: "watchers_recovered" in [entry["event"] for entry in logs])
        gate.opened.set()
        ended(job)

    names = [entry["event"] for entry in logs]
    assert (names.count("watchers_unavailable"), names.count("watchers_recovered")) == (1, 1)
    assert not any(name.startswith("worker_database") for name in names)


def test_an_answer_that_waited_for_the_database_is_written_although_the_lease_was_lost(
    site: Site, desk_route: None, fast_heartbeat: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unavailable, waiting = threading.Event(), threading.Event()
    unavailable.set()

    def finish_later(*args: Any) -> Any:
        if unavailable.is_set():
            waiting.set()
            raise OperationalError("the database is unavailable")
        return finish_all(*args)

    monkeypatch.setattr("jobs.worker.engine.finish_all", finish_later)
    job = queued(site)

    with working(ScriptedProvider(HELLO)) as engine:
        assert waiting.wait(10)
        first = WorkerLease.objects.get().worker_id
        # The outage seems to have just ended, so that no job is swept yet.
        monkeypatch.setattr(engine._supervisor, "_failed_at", float("inf"))
        WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        wait_for(lambda: WorkerLease.objects.exclude(worker_id=first).exists())
        unavailable.clear()
        done = ended(job)

    assert (done.state, done.attempt, done.crash_count) == (JobState.SUCCEEDED, 1, 0)
    assert UsageEvent.objects.get().billable


def test_a_slot_is_free_while_its_outcome_waits_to_be_written_up_to_a_limit(
    site: Site, desk_route: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOB_SLOTS = 1
    may_end, started = threading.Event(), threading.Semaphore(0)

    def finish_when_allowed(ends: Sequence[FinishRequest]) -> Any:
        assert may_end.wait(20)
        return finish_all(ends)

    async def count(_: InferenceRequest) -> None:
        started.release()

    monkeypatch.setattr("jobs.worker.engine.finish_all", finish_when_allowed)
    jobs = [queued(site) for _ in range(4)]

    with working(ScriptedProvider(*[HELLO] * 4, before=count)):
        assert started.acquire(timeout=10)
        assert started.acquire(timeout=10)
        wait_for(lambda: Job.objects.filter(state="running").count() == 2)
        assert not started.acquire(timeout=0.5)
        may_end.set()
        assert {ended(job).state for job in jobs} == {JobState.SUCCEEDED}


def test_an_outcome_that_cannot_be_written_fails_the_job_instead_of_running_it_again(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_success(ends: Sequence[FinishRequest]) -> Any:
        if any(isinstance(end.outcome, AttemptSucceeded) for end in ends):
            raise DataError("value too long")
        return finish_all(ends)

    monkeypatch.setattr("jobs.worker.engine.finish_all", refuse_success)
    job = queued(site)

    with working(ScriptedProvider(HELLO)):
        done = ended(job)

    assert (done.state, done.error_code, done.attempt) == (JobState.FAILED, "internal_error", 1)
    # The provider answered, and charges for it.
    assert UsageEvent.objects.values_list("outcome", "output_tokens", "billable").get() == ("ok", 1, False)


def test_a_usage_record_that_cannot_be_written_does_not_leave_the_job_running(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_accounts(ends: Sequence[FinishRequest]) -> Any:
        if any(end.calls for end in ends):
            raise DataError("value too long")
        return finish_all(ends)

    monkeypatch.setattr("jobs.worker.engine.finish_all", refuse_accounts)
    job = queued(site)

    with working(ScriptedProvider(HELLO)):
        done = ended(job)

    assert (done.state, done.error_code, done.attempt) == (JobState.FAILED, "internal_error", 1)
    assert not UsageEvent.objects.filter(outcome="open").exists()


def test_a_claim_whose_answer_was_lost_is_released(site: Site, desk_route: None, fast_heartbeat: None) -> None:
    with working(ScriptedProvider(HELLO)):
        worker_id = wait_for(lambda: WorkerLease.objects.first()).worker_id
        job = queued(site, available_at=timezone.now() + timedelta(hours=1))
        # The effect of a claim whose answer was lost: the worker holds the job, and does not know it.
        with transaction.atomic():
            Job.objects.update(state="running", attempt=1, worker_id=worker_id, deadline_at="2100-01-01T00:00Z")
            Attempt.objects.create(job=job, number=1, worker_id=worker_id)
        done = ended(job)

    assert (done.state, done.attempt, done.crash_count, done.error_count) == (JobState.SUCCEEDED, 2, 0, 0)


def test_a_job_encrypted_with_an_unknown_key_is_released_and_waits(
    site: Site, desk_route: None, settings: Settings
) -> None:
    ours = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = f"newer:{new_key()}"
    job = queued(site)
    settings.ENCRYPTION_KEYS = ours

    with working(ScriptedProvider(HELLO)):
        wait_for(lambda: Attempt.objects.filter(outcome="released").exists())

    waiting = Job.objects.defer("payload").get(id=job.id)
    assert (waiting.state, waiting.error_count, waiting.crash_count) == ("queued", 0, 0)
    assert waiting.available_at > timezone.now() + timedelta(seconds=5)


def test_a_payload_of_an_older_version_is_upgraded(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upcast(body: dict[str, Any]) -> dict[str, Any]:
        return {"model": body["name"], "messages": [{"role": "user", "content": body["text"]}]}

    monkeypatch.setattr(payload, "UPCASTERS", (upcast,))
    monkeypatch.setattr(execute, "PAYLOAD_VERSION", 2)
    older = make_job(site, payload=b'{"name":"desk","text":"Say hello."}', payload_version=1)
    newer = queued(site, payload_version=2)

    with working(ScriptedProvider(HELLO, HELLO)):
        assert {ended(job).state for job in (older, newer)} == {JobState.SUCCEEDED}


def test_a_payload_of_a_newer_version_waits_for_a_newer_worker(site: Site, desk_route: None) -> None:
    job = queued(site, payload_version=99)

    with working(ScriptedProvider(HELLO)):
        wait_for(lambda: Attempt.objects.filter(outcome="released", error_code="newer_payload").exists())

    job.refresh_from_db()
    assert (job.state, job.error_count, job.crash_count) == ("queued", 0, 0)
    assert job.available_at > timezone.now() + timedelta(seconds=5)


def test_an_internal_error_is_retried_and_never_leaves_a_job_running(site: Site, desk_route: None) -> None:
    job = queued(site, max_attempts=2)

    with working(ScriptedProvider()):  # an empty script raises AssertionError
        done = ended(job)

    assert (done.state, done.error_code, done.attempt) == (JobState.FAILED, "internal_error", 2)
    assert set(UsageEvent.objects.values_list("outcome", "estimated", "billable")) == {("error", True, False)}


def break_all_other_connections() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_worker_erases_prompts_after_the_retention_period(site: Site, desk_route: None) -> None:
    old = make_job(site, state=JobState.FAILED, finished_at=timezone.now() - timedelta(days=400))

    with working(ScriptedProvider(HELLO)):
        wait_for(lambda: Job.objects.filter(id=old.id, erased_at__isnull=False).exists())


def test_a_batch_event_is_recorded_soon_after_the_last_member_ended(site: Site, desk_route: None) -> None:
    batch = make_batch(site, total=2)
    for number in range(2):
        make_job(site, queue="batch", batch=batch, custom_id=str(number))

    with working(ScriptedProvider(HELLO, HELLO)):
        done = wait_for(lambda: Batch.objects.filter(id=batch.id, state="completed").first())

    assert (done.completed, done.failed) == (2, 0)
    assert list(Event.objects.values_list("type", flat=True)) == ["batch.completed"]

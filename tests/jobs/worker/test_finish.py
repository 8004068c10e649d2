"""Finishing attempts: all in one transaction, and only by the worker that holds the fencing token."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from jobs.models import Attempt, Job, JobState
from jobs.worker.fence import Fence
from jobs.worker.finish import FinishRequest, FinishResult, finish, finish_all
from jobs.worker.leases import acquire_lease
from jobs.worker.outcomes import (
    AttemptCanceled,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    ExecutionOutcome,
    RetryAfterBackoff,
)
from metering import usage_records
from metering.models import UsageEvent, UsageOutcome
from metering.usage_records import UsageRecord
from providers.types import Usage
from tenants.models import Site
from tests.factories import make_batch, make_job
from tests.jobs.running import claim_one
from webhooks.models import Delivery, Endpoint, Event

ANSWER = b'{"choices":[]}'
ENDINGS: list[tuple[ExecutionOutcome, str, str]] = [
    (AttemptSucceeded(ANSWER), "succeeded", "ok"),
    (AttemptFailed("rejected", "no such field"), "failed", "error"),
    (RetryAfterBackoff(30, "overloaded", "busy"), "queued", "error"),
    (AttemptCanceled(), "canceled", "canceled"),
    (AttemptReleased(), "queued", "released"),
]


@pytest.fixture
def running(site: Site, worker_id: UUID) -> Job:
    """A job of this worker."""
    make_job(site)
    return claim_one(worker_id)


def fence_of(job: Job, **changes: Any) -> Fence:
    assert job.worker_id is not None
    return Fence(**{"job_id": job.id, "attempt": job.attempt, "worker_id": job.worker_id, **changes})


def call(job: Job, number: int = 1, **changes: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "dedupe_key": f"{job.public_id}:{job.attempt}:{number}",
        "site_id": job.site_id,
        "job_id": job.id,
        "attempt": job.attempt,
        "call": number,
        "request_id": "",
        "provider": "sim-openai",
        "price_list": "openai",
        "model": "desk",
        "upstream_model": "gpt-4o-mini",
        "started_at": timezone.now(),
        "outcome": UsageOutcome.OK,
        "usage": Usage(1000, 100),
    }
    return UsageRecord(**{**values, **changes})


@pytest.mark.parametrize(("ending", "state", "outcome"), ENDINGS)
def test_an_outcome_moves_the_job_and_closes_the_attempt(
    running: Job, ending: ExecutionOutcome, state: str, outcome: str
) -> None:
    assert finish(fence_of(running), ending, []) is FinishResult.WRITTEN

    running.refresh_from_db()
    attempt = Attempt.objects.get()
    assert (running.state, running.worker_id, running.deadline_at) == (state, None, None)
    assert (running.finished_at is None) == (state == "queued")
    assert attempt.outcome == outcome
    assert attempt.ended_at is not None


@pytest.mark.parametrize(("ending", "state", "_"), ENDINGS)
def test_one_event_is_recorded_and_only_for_a_terminal_state(
    running: Job, endpoint: Endpoint, ending: ExecutionOutcome, state: str, _: str
) -> None:
    finish(fence_of(running), ending, [])

    if state == "queued":
        assert not Event.objects.exists()
        return
    event = Event.objects.get()
    assert (event.type, event.subject_id, event.is_terminal) == (f"job.{state}", running.id, True)
    assert Delivery.objects.get().endpoint == endpoint


def test_success_stores_the_answer_and_bills_the_call_that_answered(running: Job) -> None:
    failed = call(running, 1, outcome=UsageOutcome.ERROR, usage=Usage(), error_kind="overloaded", http_status=503)

    finish(fence_of(running), AttemptSucceeded(ANSWER), [failed, call(running, 2)])

    running.refresh_from_db()
    assert running.result == ANSWER
    assert list(UsageEvent.objects.values_list("call", "outcome", "billable", "input_tokens")) == [
        (1, "error", False, 0),
        (2, "ok", True, 1000),
    ]
    # gpt-4o-mini: 0.15 USD in, 0.60 USD out, per million tokens.
    assert UsageEvent.objects.get(billable=True).cost_pico_usd == 1000 * 150_000 + 100 * 600_000


def test_without_success_nothing_is_billed(running: Job) -> None:
    finish(fence_of(running), AttemptFailed("rejected", "no"), [call(running, outcome=UsageOutcome.ERROR)])

    assert not UsageEvent.objects.filter(billable=True).exists()


def test_a_retry_waits_and_stores_its_error(running: Job) -> None:
    finish(fence_of(running), RetryAfterBackoff(30, "overloaded", "busy"), [])

    running.refresh_from_db()
    wait = running.available_at - timezone.now()
    assert timedelta(seconds=25) < wait <= timedelta(seconds=30)
    assert (running.error_count, running.error_code, running.error_message) == (1, "overloaded", "busy")


def test_a_released_job_is_ready_immediately_and_has_no_error(running: Job, worker_id: UUID) -> None:
    finish(fence_of(running), AttemptReleased(), [])

    again = claim_one(worker_id)
    assert (again.attempt, again.error_count, again.crash_count) == (2, 0, 0)


@pytest.mark.parametrize(
    "change", [{"attempt": 2}, {"attempt": 0}, {"worker_id": uuid4()}, {"job_id": uuid4()}], ids=lambda c: next(iter(c))
)
def test_a_fenced_worker_changes_nothing(running: Job, change: dict[str, Any]) -> None:
    assert finish(fence_of(running, **change), AttemptSucceeded(ANSWER), []) is FinishResult.FENCED

    running.refresh_from_db()
    assert (running.state, running.result) == (JobState.RUNNING, None)
    assert not Event.objects.exists()


def test_the_call_of_a_late_worker_is_recorded_and_not_billed(running: Job, worker_id: UUID) -> None:
    late = fence_of(running)
    finish(late, AttemptReleased(), [])
    second = claim_one(worker_id)
    finish(fence_of(second), AttemptSucceeded(ANSWER), [call(second)])

    assert finish(late, AttemptSucceeded(b"late"), [call(running)]) is FinishResult.FENCED

    running.refresh_from_db()
    assert running.result == ANSWER
    assert sorted(UsageEvent.objects.values_list("attempt", "billable", "outcome")) == [
        (1, False, "ok"),
        (2, True, "ok"),
    ]
    assert Event.objects.count() == 1


def test_finishing_twice_has_the_effect_of_once(running: Job) -> None:
    fence, calls = fence_of(running), [call(running)]

    assert finish(fence, AttemptSucceeded(ANSWER), calls) is FinishResult.WRITTEN
    assert finish(fence, AttemptSucceeded(b"again"), calls) is FinishResult.FENCED

    running.refresh_from_db()
    assert running.result == ANSWER
    assert UsageEvent.objects.filter(billable=True).count() == 1
    assert Event.objects.count() == 1


@pytest.mark.parametrize("ending", [RetryAfterBackoff(30, "overloaded", "busy"), AttemptReleased()])
def test_a_requested_cancel_takes_precedence_over_another_attempt(running: Job, ending: ExecutionOutcome) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())

    finish(fence_of(running), ending, [])

    running.refresh_from_db()
    assert running.state == JobState.CANCELED
    assert Event.objects.get().type == "job.canceled"


def test_an_answer_that_arrived_before_the_cancel_is_kept(running: Job) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())

    finish(fence_of(running), AttemptSucceeded(ANSWER), [call(running)])

    running.refresh_from_db()
    assert running.state == JobState.SUCCEEDED


@pytest.mark.django_db(transaction=True)
def test_if_the_event_cannot_be_written_nothing_is(site: Site) -> None:
    make_job(site)
    running = claim_one(acquire_lease())
    Event.objects.create(site=site, type="job.failed", subject_id=running.id, is_terminal=True, payload=b"{}")

    with pytest.raises(IntegrityError):
        finish(fence_of(running), AttemptSucceeded(ANSWER), [call(running)])

    running.refresh_from_db()
    assert (running.state, running.result) == (JobState.RUNNING, None)
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        "state = 'running'",
        "state = 'succeeded'",
        "worker_id = gen_random_uuid()",
        "finished_at = now()",
    ],
)
def test_the_database_rejects_impossible_states(site: Site, change: str) -> None:
    make_job(site)

    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute(f"UPDATE jobs_job SET {change}")  # noqa: S608 (a constant of this test)


def test_a_too_long_message_or_large_count_does_not_keep_a_job_from_finishing(running: Job) -> None:
    absurd = call(running, usage=Usage(10**15, 10**12), outcome=UsageOutcome.ERROR)

    assert finish(fence_of(running), AttemptFailed("x" * 100, "words " * 500), [absurd]) is FinishResult.WRITTEN

    running.refresh_from_db()
    assert running.state == JobState.FAILED
    assert UsageEvent.objects.get().input_tokens == 2**31 - 1


def test_a_call_that_was_opened_but_not_made_is_closed(running: Job) -> None:
    usage_records.write([call(running, outcome=UsageOutcome.OPEN, usage=Usage())])

    finish(fence_of(running), AttemptCanceled(), [])

    event = UsageEvent.objects.get()
    assert (event.outcome, event.billable, event.input_tokens) == ("lost", False, 0)


def test_attempts_of_a_group_are_fenced_individually(site: Site, worker_id: UUID) -> None:
    for _ in range(4):
        make_job(site)
    answered, late, failed, again = (claim_one(worker_id) for _ in range(4))
    lost = fence_of(late)
    finish(lost, AttemptReleased(), [])

    results = finish_all(
        [
            FinishRequest(fence_of(answered), AttemptSucceeded(ANSWER), [call(answered)]),
            FinishRequest(lost, AttemptSucceeded(b"late"), [call(late)]),
            FinishRequest(
                fence_of(failed), AttemptFailed("rejected", "no"), [call(failed, outcome=UsageOutcome.ERROR)]
            ),
            FinishRequest(fence_of(again), RetryAfterBackoff(5, "overloaded", "busy")),
        ]
    )

    assert results == [FinishResult.WRITTEN, FinishResult.FENCED, FinishResult.WRITTEN, FinishResult.WRITTEN]
    states = dict(Job.objects.values_list("id", "state"))
    assert [states[job.id] for job in (answered, late, failed, again)] == ["succeeded", "queued", "failed", "queued"]
    assert set(UsageEvent.objects.filter(billable=True).values_list("job_id", flat=True)) == {answered.id}
    assert UsageEvent.objects.count() == 3
    assert sorted(Event.objects.values_list("type", flat=True)) == ["job.failed", "job.succeeded"]


def test_of_two_requests_for_one_attempt_in_a_group_the_first_counts(running: Job) -> None:
    fence = fence_of(running)

    results = finish_all(
        [
            FinishRequest(fence, AttemptSucceeded(ANSWER), [call(running)]),
            FinishRequest(fence, AttemptReleased()),
            FinishRequest(fence, AttemptFailed("rejected", "no"), [call(running, outcome=UsageOutcome.ERROR)]),
        ]
    )

    assert results == [FinishResult.WRITTEN, FinishResult.FENCED, FinishResult.FENCED]
    running.refresh_from_db()
    assert (running.state, running.result) == (JobState.SUCCEEDED, ANSWER)
    assert list(UsageEvent.objects.values_list("outcome", "billable")) == [("ok", True)]
    assert list(Event.objects.values_list("type", flat=True)) == ["job.succeeded"]


def test_a_group_with_one_failure_changes_nothing(site: Site, worker_id: UUID) -> None:
    make_job(site), make_job(site)
    good, bad = claim_one(worker_id), claim_one(worker_id)
    Event.objects.create(site=site, type="job.failed", subject_id=bad.id, is_terminal=True, payload=b"{}")

    with pytest.raises(IntegrityError), transaction.atomic():
        finish_all(
            [
                FinishRequest(fence_of(good), AttemptSucceeded(ANSWER)),
                FinishRequest(fence_of(bad), AttemptSucceeded(ANSWER)),
            ]
        )

    assert Job.objects.filter(state=JobState.RUNNING).count() == 2


def test_no_event_is_recorded_for_a_single_member_of_a_batch(site: Site, worker_id: UUID) -> None:
    make_job(site, batch=make_batch(site), custom_id="a")

    finish(fence_of(claim_one(worker_id)), AttemptSucceeded(ANSWER), [])

    assert Job.objects.get().state == JobState.SUCCEEDED
    assert not Event.objects.exists()

"""Ending an attempt: everything in one transaction, and only by who holds it."""

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
    """A job that this worker runs."""
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
def test_an_ending_moves_the_job_and_closes_the_attempt(
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
def test_the_site_is_told_once_and_only_of_an_end(
    running: Job, endpoint: Endpoint, ending: ExecutionOutcome, state: str, _: str
) -> None:
    finish(fence_of(running), ending, [])

    if state == "queued":
        assert not Event.objects.exists()
        return
    event = Event.objects.get()
    assert (event.type, event.subject_id, event.is_terminal) == (f"job.{state}", running.id, True)
    assert Delivery.objects.get().endpoint == endpoint


def test_success_stores_the_answer_and_bills_the_call_that_gave_it(running: Job) -> None:
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


def test_a_retry_waits_and_remembers_why(running: Job) -> None:
    finish(fence_of(running), RetryAfterBackoff(30, "overloaded", "busy"), [])

    running.refresh_from_db()
    wait = running.available_at - timezone.now()
    assert timedelta(seconds=25) < wait <= timedelta(seconds=30)
    assert (running.error_count, running.error_code, running.error_message) == (1, "overloaded", "busy")


def test_what_is_given_back_is_ready_at_once_and_no_error(running: Job, worker_id: UUID) -> None:
    finish(fence_of(running), AttemptReleased(), [])

    again = claim_one(worker_id)
    assert (again.attempt, again.error_count, again.crash_count) == (2, 0, 0)


@pytest.mark.parametrize(
    "change", [{"attempt": 2}, {"attempt": 0}, {"worker_id": uuid4()}, {"job_id": uuid4()}], ids=lambda c: next(iter(c))
)
def test_who_does_not_hold_the_attempt_changes_nothing(running: Job, change: dict[str, Any]) -> None:
    assert finish(fence_of(running, **change), AttemptSucceeded(ANSWER), []) is FinishResult.FENCED

    running.refresh_from_db()
    assert (running.state, running.result) == (JobState.RUNNING, None)
    assert not Event.objects.exists()


def test_a_late_worker_s_call_is_accounted_for_and_not_billed(running: Job, worker_id: UUID) -> None:
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


def test_ending_twice_is_ending_once(running: Job) -> None:
    fence, calls = fence_of(running), [call(running)]

    assert finish(fence, AttemptSucceeded(ANSWER), calls) is FinishResult.WRITTEN
    assert finish(fence, AttemptSucceeded(b"again"), calls) is FinishResult.FENCED

    running.refresh_from_db()
    assert running.result == ANSWER
    assert UsageEvent.objects.filter(billable=True).count() == 1
    assert Event.objects.count() == 1


@pytest.mark.parametrize("ending", [RetryAfterBackoff(30, "overloaded", "busy"), AttemptReleased()])
def test_a_cancel_that_was_asked_for_goes_before_another_try(running: Job, ending: ExecutionOutcome) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())

    finish(fence_of(running), ending, [])

    running.refresh_from_db()
    assert running.state == JobState.CANCELED
    assert Event.objects.get().type == "job.canceled"


def test_an_answer_that_came_before_the_cancel_is_kept(running: Job) -> None:
    Job.objects.update(cancel_requested_at=timezone.now())

    finish(fence_of(running), AttemptSucceeded(ANSWER), [call(running)])

    running.refresh_from_db()
    assert running.state == JobState.SUCCEEDED


@pytest.mark.django_db(transaction=True)
def test_when_the_event_cannot_be_written_nothing_is(site: Site) -> None:
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
def test_the_database_itself_refuses_states_that_cannot_be(site: Site, change: str) -> None:
    make_job(site)

    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute(f"UPDATE jobs_job SET {change}")  # noqa: S608 (a constant of this test)


def test_a_message_or_a_count_out_of_range_does_not_keep_a_job_from_ending(running: Job) -> None:
    absurd = call(running, usage=Usage(10**15, 10**12), outcome=UsageOutcome.ERROR)

    assert finish(fence_of(running), AttemptFailed("x" * 100, "words " * 500), [absurd]) is FinishResult.WRITTEN

    running.refresh_from_db()
    assert running.state == JobState.FAILED
    assert UsageEvent.objects.get().input_tokens == 2**31 - 1


def test_a_call_that_was_opened_and_not_made_does_not_stay_open(running: Job) -> None:
    usage_records.write([call(running, outcome=UsageOutcome.OPEN, usage=Usage())])

    finish(fence_of(running), AttemptCanceled(), [])

    event = UsageEvent.objects.get()
    assert (event.outcome, event.billable, event.input_tokens) == ("lost", False, 0)


def test_many_attempts_end_in_one_go_each_fenced_by_itself(site: Site, worker_id: UUID) -> None:
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


def test_of_two_wishes_for_one_attempt_in_one_group_the_first_counts(running: Job) -> None:
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


def test_a_group_in_which_one_cannot_end_changes_nothing(site: Site, worker_id: UUID) -> None:
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


def test_the_end_of_a_batch_s_member_is_not_told_by_itself(site: Site, worker_id: UUID) -> None:
    make_job(site, batch=make_batch(site), custom_id="a")

    finish(fence_of(claim_one(worker_id)), AttemptSucceeded(ANSWER), [])

    assert Job.objects.get().state == JobState.SUCCEEDED
    assert not Event.objects.exists()

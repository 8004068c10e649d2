"""Submitting a job: what is stored, what is rejected, and idempotency."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from core import clock
from inference import routing
from inference.errors import UnknownModel
from inference.models import ProviderAccount, Route
from jobs.errors import InvalidBody, InvalidTime
from jobs.models import Job, JobKind, JobState
from jobs.submit import JobSubmission, SubmittedJob, request_hash, submit
from jobs.tasks import bell
from tenants.errors import IdempotencyConflict, ModelNotAllowed
from tenants.grant import Grant
from tenants.models import Site

BODY = {"model": "desk", "messages": [{"role": "user", "content": "rosebud"}]}


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the doorbell was rung."""
    rings: list[int] = []
    monkeypatch.setattr(bell, "ring", lambda: rings.append(1))
    return rings


def submission(**changes: Any) -> JobSubmission:
    return JobSubmission(**{"kind": JobKind.CHAT, "body": BODY, **changes})


@pytest.mark.django_db(transaction=True)
def test_a_job_is_stored_before_the_doorbell_is_rung(site: Site, desk_route: None, rung: list[int]) -> None:
    submitted = submit(site, submission(metadata={"post": "12"}, request_id="req_1", max_attempts=5))

    job = Job.objects.get()
    assert submitted == SubmittedJob(job, created=True)
    assert (job.site, job.kind, job.model, job.state) == (site, "chat", "desk", JobState.QUEUED)
    assert (job.metadata, job.request_id, job.max_attempts, job.attempt) == ({"post": "12"}, "req_1", 5, 0)
    assert rung == [1]


def test_the_prompt_is_encrypted_in_the_database(site: Site, desk_route: None) -> None:
    job = submit(site, submission()).job

    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM jobs_job")
        stored = bytes(cursor.fetchone()[0])
    assert b"rosebud" not in stored
    assert b"rosebud" in Job.objects.get(id=job.id).payload


def test_the_same_key_and_request_return_the_same_job(site: Site, desk_route: None) -> None:
    first = submit(site, submission(idempotency_key="order-7"))
    reordered = {"messages": BODY["messages"], "model": "desk"}
    again = submit(site, submission(idempotency_key="order-7", body=reordered, request_id="another"))

    assert again == SubmittedJob(first.job, created=False)
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"body": {**BODY, "temperature": 0.5}},
        {"metadata": {"post": "13"}},
        {"priority": 50},
        {"max_attempts": 1},
    ],
)
def test_the_same_key_with_a_different_request_is_rejected(
    site: Site, desk_route: None, change: dict[str, Any]
) -> None:
    submit(site, submission(idempotency_key="order-7"))

    with pytest.raises(IdempotencyConflict):
        submit(site, submission(idempotency_key="order-7", **change))
    assert Job.objects.count() == 1


def test_a_request_that_no_target_is_capable_of_is_rejected(site: Site, desk_route: None) -> None:
    ProviderAccount.objects.update(dialect="anthropic")
    routing.invalidate_cache()

    with pytest.raises(InvalidBody) as caught:
        submit(site, submission(body={**BODY, "n": 2}))

    assert caught.value.param == "n"
    assert not Job.objects.exists()


def test_the_token_limit_of_a_grant_applies_to_all_choices_together(site: Site, desk_route: None) -> None:
    submit(site, submission(body={**BODY, "n": 2, "max_tokens": 50}, grant=Grant(max_tokens=100)))

    with pytest.raises(InvalidBody, match="at most 100 output tokens"):
        submit(site, submission(body={**BODY, "n": 3, "max_tokens": 50}, grant=Grant(max_tokens=100)))


def test_a_key_belongs_to_its_site(site: Site, desk_route: None) -> None:
    other = Site.objects.create(slug="florist", name="Florist")

    submit(site, submission(idempotency_key="order-7"))
    submit(other, submission(idempotency_key="order-7"))

    assert Job.objects.count() == 2


def test_without_a_key_every_submission_is_a_new_job(site: Site, desk_route: None) -> None:
    submit(site, submission())
    submit(site, submission())

    assert Job.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_concurrent_submissions_with_one_key_create_one_job(site: Site, desk_route: None) -> None:
    found: list[SubmittedJob] = []
    start = threading.Barrier(8)

    def go() -> None:
        start.wait()
        found.append(submit(site, submission(idempotency_key="order-7")))
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each.job.id for each in found}) == 1
    assert [each.created for each in found].count(True) == 1
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", {}, "model"),
        ("chat", {"model": "desk"}, "messages"),
        ("chat", {**BODY, "temperature": 3}, "temperature"),
        ("chat", {**BODY, "max_tokens": -1}, "max_tokens"),
        ("chat", {**BODY, "stream": True}, "stream"),
        ("chat", {**BODY, "messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ("messages", {"model": "desk", "messages": BODY["messages"]}, "max_tokens"),
        ("embeddings", {"model": "desk"}, "input"),
    ],
)
def test_an_invalid_body_is_rejected_and_nothing_is_stored(
    site: Site, desk_route: None, kind: JobKind, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidBody) as refused:
        submit(site, submission(kind=kind, body=body))

    assert refused.value.param == param
    assert not Job.objects.exists()


def test_a_model_without_a_route_is_rejected(site: Site, desk_route: None) -> None:
    with pytest.raises(UnknownModel):
        submit(site, submission(body={**BODY, "model": "nobody"}))
    assert not Job.objects.exists()


def test_a_model_that_is_not_on_the_sites_list_is_rejected(site: Site, desk_route: None) -> None:
    site.allowed_models = ["another"]

    with pytest.raises(ModelNotAllowed):
        submit(site, submission())
    assert not Job.objects.exists()


def test_limits_of_a_narrow_token_apply(site: Site, desk_route: None) -> None:
    with pytest.raises(ModelNotAllowed):
        submit(site, submission(grant=Grant("another")))
    with pytest.raises(InvalidBody, match="at most 100"):
        submit(site, submission(grant=Grant(max_tokens=100), body={**BODY, "max_tokens": 101}))

    assert submit(site, submission(grant=Grant("desk", 100), body={**BODY, "max_tokens": 100})).created


def test_request_hashes_of_different_kinds_differ() -> None:
    assert request_hash(submission()) != request_hash(submission(kind=JobKind.MESSAGES))


def test_a_repeated_submission_is_accepted_although_limits_have_changed(site: Site, desk_route: None) -> None:
    soon = timezone.now() + timedelta(seconds=60)
    first = submit(site, submission(idempotency_key="order-7", expires_at=soon))
    site.allowed_models = ["another"]
    Route.objects.all().delete()
    routing.invalidate_cache()

    with clock.frozen(soon + timedelta(seconds=1)):
        again = submit(site, submission(idempotency_key="order-7", expires_at=soon))

    assert again == SubmittedJob(first.job, created=False)


@pytest.mark.parametrize("available_in", [None, 120])
def test_a_job_that_would_expire_before_it_can_start_is_rejected(
    site: Site, desk_route: None, available_in: int | None
) -> None:
    now = timezone.now()
    begins = now + timedelta(seconds=available_in) if available_in else None

    with pytest.raises(InvalidTime) as refused:
        submit(site, submission(available_at=begins, expires_at=now + timedelta(seconds=available_in or 0)))

    assert refused.value.param == "expires_at"

"""Canceling and retrying jobs: which states allow it, what changes, and who may."""

import json

import pytest
from django.utils import timezone

from core.ids import new_uuid, to_public
from jobs.cancel import cancel
from jobs.errors import InvalidBody, JobEnded, JobNotFound, JobNotRetryable, UnreadablePayload
from jobs.models import Job, JobState
from jobs.retry import retry
from jobs.worker.claim import claim
from jobs.worker.leases import acquire_lease
from tenants.errors import ModelNotAllowed
from tenants.grant import Grant
from tenants.models import Site
from tests.factories import make_job, make_site
from webhooks.models import Event

ENDED = {"finished_at": timezone.now()}
BODY = b'{"model":"dear","messages":[{"role":"user","content":"x"}],"max_tokens":500}'


def test_a_queued_job_is_canceled_at_once_and_never_claimed(site: Site) -> None:
    job = make_job(site)

    assert cancel(site, job.public_id).state == JobState.CANCELED
    assert Event.objects.get().type == "job.canceled"
    assert claim(acquire_lease(), 10) == []


def test_canceling_a_running_job_requests_its_worker_to_stop(site: Site) -> None:
    job = make_job(site)
    claim(acquire_lease(), 1)

    canceled = cancel(site, job.public_id)

    assert canceled.state == JobState.RUNNING
    assert canceled.cancel_requested_at is not None
    assert not Event.objects.exists()


def test_the_time_of_the_first_cancel_request_is_kept(site: Site) -> None:
    job = make_job(site)
    claim(acquire_lease(), 1)

    first = cancel(site, job.public_id).cancel_requested_at
    assert cancel(site, job.public_id).cancel_requested_at == first


def test_canceling_a_job_is_idempotent(site: Site) -> None:
    job = make_job(site)
    cancel(site, job.public_id)

    assert cancel(site, job.public_id).state == JobState.CANCELED
    assert Event.objects.count() == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "expired"])
def test_a_job_that_has_ended_cannot_be_canceled(site: Site, state: str) -> None:
    job = make_job(site, state=state, **ENDED)

    with pytest.raises(JobEnded, match=state):
        cancel(site, job.public_id)


@pytest.mark.parametrize("state", ["failed", "canceled", "expired"])
def test_a_job_without_success_is_retried_as_a_new_job(site: Site, dear_route: None, state: str) -> None:
    old = make_job(site, state=state, payload=BODY, metadata={"post": "7"}, idempotency_key="k", **ENDED)

    new = retry(site, old.public_id, request_id="req_2")

    assert (new.state, new.retry_of, new.idempotency_key, new.request_id) == ("queued", old, None, "req_2")
    assert (bytes(Job.objects.get(id=new.id).payload), new.metadata) == (BODY, {"post": "7"})
    old.refresh_from_db()
    assert old.state == state


@pytest.mark.parametrize("fields", [{"state": "queued"}, {"state": "succeeded", **ENDED}])
def test_an_unfinished_or_successful_job_cannot_be_retried(site: Site, fields: dict[str, object]) -> None:
    job = make_job(site, **fields)

    with pytest.raises(JobNotRetryable):
        retry(site, job.public_id)


@pytest.mark.parametrize("act", [cancel, retry])
def test_unknown_and_malformed_ids_and_another_sites_job_are_not_found(site: Site, act: object) -> None:
    other = make_job(make_site("florist"), state="failed", **ENDED)

    for public_id in (other.public_id, to_public("job", new_uuid()), "job_x", "", "evt_" + "0" * 26):
        with pytest.raises(JobNotFound):
            act(site, public_id)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("grant", "refusal"),
    [(Grant("cheap"), ModelNotAllowed), (Grant("dear", 10), InvalidBody)],
)
def test_a_narrow_token_cannot_retry_a_job_that_it_could_not_submit(
    site: Site, grant: Grant, refusal: type[Exception]
) -> None:
    job = make_job(site, state="failed", model="dear", payload=BODY, **ENDED)

    with pytest.raises(refusal):
        retry(site, job.public_id, grant)


def test_a_narrow_token_cannot_retry_a_job_of_a_premium_tier(site: Site, dear_route: None) -> None:
    payload = json.dumps({**json.loads(BODY), "service_tier": "priority"}).encode()
    job = make_job(site, state="failed", model="dear", payload=payload, **ENDED)

    with pytest.raises(InvalidBody):
        retry(site, job.public_id, Grant(allows_premium_tiers=False))
    assert retry(site, job.public_id).retry_of_id == job.id


def test_a_job_whose_model_is_no_longer_allowed_cannot_be_retried(site: Site) -> None:
    job = make_job(site, state="failed", model="dear", payload=BODY, **ENDED)
    site.allowed_models = ["cheap"]

    with pytest.raises(ModelNotAllowed):
        retry(site, job.public_id)


def test_an_unreadable_job_cannot_be_retried(site: Site) -> None:
    job = make_job(site, state="failed", payload=b"not json", **ENDED)

    with pytest.raises(UnreadablePayload):
        retry(site, job.public_id)

"""The text that says what a queued job waits for."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.ids import new_uuid
from inference.models import ProviderAccount
from jobs import pauses
from jobs.admin.waiting import explain_waiting
from jobs.models import Job
from jobs.pauses import PauseScope, QueueName
from tenants.audit import Actor
from tenants.models import Site
from tests.factories import make_batch, make_job, make_provider, make_site

pytestmark = pytest.mark.django_db

ADA = Actor("ada")


def why(job: Job) -> str:
    return explain_waiting(Job.objects.select_related("site").get(id=job.id), timezone.now())


def in_seconds(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def make_running(site: Site, **fields: Any) -> Job:
    return make_job(site, state="running", worker_id=new_uuid(), deadline_at=in_seconds(60), **fields)


@pytest.mark.parametrize(
    ("paused", "said"), [("site", "The site bakery"), ("queue", "The queue batch"), ("batch", "The batch batch_")]
)
def test_a_pause_is_described_with_actor_and_reason(site: Site, worker_id: UUID, paused: str, said: str) -> None:
    batch = make_batch(site)
    scopes: dict[str, PauseScope] = {"site": site, "queue": QueueName.BATCH, "batch": batch}
    pauses.pause(scopes[paused], ADA, "too dear")

    found = why(make_job(site, batch=batch, queue="batch", custom_id="a"))

    assert f"Paused. {said}" in found
    assert re.search(r"by ada \d s ago: too dear$", found)


def test_without_live_workers_a_job_waits_for_one(site: Site) -> None:
    assert why(make_job(site)) == "No worker is running. The job waits until one starts."


def test_a_deferred_retry_waits_for_the_retry_budget(site: Site, worker_id: UUID) -> None:
    job = make_job(site, attempt=1, error_code="retry_budget_exhausted", available_at=in_seconds(3700))

    assert "Deferred: the retry budget" in why(job)
    assert "Next attempt in 1 h." in why(job)


def test_a_job_waits_while_the_breakers_of_its_providers_are_open(site: Site, worker_id: UUID) -> None:
    job = make_job(site, attempt=1, error_code="providers_in_cooldown", available_at=in_seconds(90))

    assert why(job) == ("Deferred: the circuit breakers of all providers of its model are open. Next attempt in 1 min.")


def test_backoff_and_a_scheduled_start_have_different_texts(site: Site, worker_id: UUID) -> None:
    retried = make_job(site, attempt=1, error_code="unavailable", available_at=in_seconds(90))
    later = make_job(site, available_at=in_seconds(7300))

    assert why(retried) == "An attempt failed. Next attempt in 1 min."
    assert why(later) == "Scheduled to start in 2 h."


def test_a_full_site_limit_is_the_reason(worker_id: UUID) -> None:
    site = make_site("capped", max_running_jobs=2)
    job = make_job(site)
    make_running(site)
    make_running(make_site("florist"))

    assert why(job) == "Waiting for its turn in the queue."
    make_running(site)
    assert why(job).startswith("Its site has reached its limit of concurrent jobs: 2 of 2 are running.")


def test_the_provider_limit_counts_the_jobs_of_all_sites(site: Site, worker_id: UUID) -> None:
    make_provider("sim-openai", max_running_jobs=1)
    job = make_job(site, provider="sim-openai")
    make_running(site, provider="another")

    assert why(job) == "Waiting for its turn in the queue."
    make_running(make_site("florist"), provider="sim-openai")
    assert why(job).startswith("sim-openai has reached its limit of concurrent jobs: 1 of 1 are running.")


def test_without_limits_a_job_waits_for_its_turn(site: Site, worker_id: UUID) -> None:
    ProviderAccount.objects.all().delete()

    assert why(make_job(site, provider="gone")) == "Waiting for its turn in the queue."


def test_the_reason_is_found_with_few_queries(site: Site, worker_id: UUID) -> None:
    make_provider("sim-openai", max_running_jobs=9)
    Site.objects.update(max_running_jobs=9)
    job = make_job(site, provider="sim-openai")
    site.refresh_from_db()

    with CaptureQueriesContext(connection) as queries:
        explain_waiting(job, timezone.now())

    assert len(queries) <= 5

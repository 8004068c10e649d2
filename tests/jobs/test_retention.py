"""Retention: prompts, answers and files are erased when they are due, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries, Settings

from core import clock
from jobs import retention
from jobs.errors import ErasedPayload
from jobs.models import Attempt, File, FileChunk, Job
from jobs.payload import load_body
from jobs.retention import RetentionReport, purge_expired, run_retention
from jobs.retry import retry
from tenants.models import Site, UsedNonce
from tests.factories import make_batch, make_file, make_job, make_site

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _thirty_days(settings: Settings) -> None:
    settings.JOB_RETENTION_DAYS = 30


def ended(site: Site, days_ago: float, **fields: Any) -> Job:
    wanted = {"state": "succeeded", "result": b'{"id":"1"}', "finished_at": clock.now() - timedelta(days=days_ago)}
    return make_job(site, **{**wanted, **fields})


def is_erased(job: Job) -> bool:
    job.refresh_from_db()
    return (job.payload, job.result, job.error_message) == (None, None, "") and job.erased_at is not None


def test_prompt_answer_and_error_message_are_erased_and_usage_is_kept(site: Site) -> None:
    job = ended(site, 31, state="failed", error_code="rejected", error_message="'secret' is bad", attempt=1)
    Attempt.objects.create(job=job, number=1, worker_id=job.id, error_code="rejected", error_message="'secret' is bad")
    before = Job.objects.values("state", "error_code", "attempt", "finished_at", "request_hash").get()

    assert purge_expired() == RetentionReport(jobs=1)

    assert is_erased(job)
    assert Job.objects.values("state", "error_code", "attempt", "finished_at", "request_hash").get() == before
    assert Attempt.objects.values_list("error_code", "error_message").get() == ("rejected", "")
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload, result FROM jobs_job")
        assert cursor.fetchone() == (None, None)


def test_only_ended_jobs_that_are_old_enough_are_erased(site: Site) -> None:
    old, young = ended(site, 30.01), ended(site, 29.99)
    waiting = make_job(site, created_at=clock.now() - timedelta(days=90))

    assert purge_expired() == RetentionReport(jobs=1)

    assert [is_erased(job) for job in (old, young, waiting)] == [True, False, False]
    assert purge_expired() == RetentionReport()


@pytest.mark.parametrize(
    ("setting", "own", "days_ago", "erased"),
    [
        (30, None, 31, True),
        (30, 7, 8, True),
        (30, 7, 6, False),
        (30, 90, 31, False),
        (30, 0, 9_999, False),
        (0, None, 9_999, False),
        (0, 7, 8, True),
        (10**12, None, 9_999, False),
    ],
)
def test_a_sites_own_retention_overrides_the_default(
    settings: Settings, setting: int, own: int | None, days_ago: int, erased: bool
) -> None:
    settings.JOB_RETENTION_DAYS = setting
    job = ended(make_site(retention_days=own), days_ago)

    purge_expired()

    assert is_erased(job) is erased


def test_many_jobs_are_erased_in_several_transactions_up_to_the_limit_of_a_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_TRANSACTION", 2)
    monkeypatch.setattr(retention, "MAX_TRANSACTIONS", 3)
    for _ in range(5):
        ended(site, 31)
    for _ in range(5):
        ended(make_site(f"site{Site.objects.count()}"), 31)

    assert [purge_expired().jobs for _ in range(3)] == [6, 4, 0]


def test_a_round_needs_the_same_number_of_statements_for_any_number_of_sites(
    site: Site, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    ended(site, 31)
    for number in range(20):
        make_site(f"site{number}")

    # A savepoint, the lock, one statement for the jobs of all sites, one for their files.
    with django_assert_num_queries(5):
        assert purge_expired() == RetentionReport(jobs=1)


def test_answers_of_a_batch_are_kept_until_the_whole_batch_is_due(site: Site) -> None:
    def days_ago(days: float) -> Any:
        return clock.now() - timedelta(days=days)

    under_way, young = make_batch(site), make_batch(site, state="completed", completed_at=days_ago(29))
    old = make_batch(site, state="cancelled", cancelling_at=days_ago(40), cancelled_at=days_ago(31))
    jobs = [ended(site, 35, batch=batch, custom_id="a") for batch in (under_way, young, old)]

    assert purge_expired() == RetentionReport(jobs=1)

    assert [is_erased(job) for job in jobs] == [False, False, True]


def test_a_round_purges_nonces_that_can_no_longer_be_replayed(site: Site) -> None:
    for number, age in ((1, timedelta(minutes=6)), (2, timedelta(minutes=4))):
        UsedNonce.objects.create(site=site, digest=bytes([number]) * 32, used_at=clock.now() - age)

    run_retention()

    assert [bytes(nonce.digest)[0] for nonce in UsedNonce.objects.all()] == [2]


@pytest.mark.django_db(transaction=True)
def test_nothing_is_erased_while_another_worker_erases(site: Site) -> None:
    ended(site, 31)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [retention.RETENTION_LOCK])
        assert run_retention() == RetentionReport()
    finally:
        other.rollback()
        other.close()
    assert run_retention() == RetentionReport(jobs=1)


def test_an_erased_job_cannot_be_retried(site: Site) -> None:
    job = ended(site, 31, state="failed")
    purge_expired()

    with pytest.raises(ErasedPayload, match="Submit it again"):
        retry(site, job.public_id)
    assert Job.objects.count() == 1


def test_retrying_a_job_that_is_erased_concurrently_raises_erased_payload(site: Site) -> None:
    job = ended(site, 31, state="failed")
    read_before = Job.objects.defer("payload").get(id=job.id)
    purge_expired()

    with pytest.raises(ErasedPayload):
        load_body(read_before)


# Files


def test_expired_files_are_deleted_with_their_content(site: Site) -> None:
    make_file(site, b"one", b"two", expires_at=clock.now() - timedelta(seconds=1))
    kept = make_file(site, b"three", expires_at=clock.now() + timedelta(hours=1))

    assert run_retention() == RetentionReport(files=1)

    assert File.objects.get() == kept
    assert [bytes(chunk.content) for chunk in FileChunk.objects.all()] == [b"three"]


def test_an_expired_file_is_kept_until_a_waiting_batch_has_read_it(site: Site) -> None:
    file = make_file(site, b"one", expires_at=clock.now() - timedelta(seconds=1))
    batch = make_batch(site, state="validating", input_file=file)

    assert purge_expired() == RetentionReport()
    batch.state = "in_progress"
    batch.save()
    assert purge_expired() == RetentionReport(files=1)

    batch.refresh_from_db()
    assert batch.input_file is None


@pytest.mark.parametrize(("own", "days_ago", "removed"), [(None, 31, True), (None, 29, False), (0, 999, False)])
def test_output_files_are_kept_as_long_as_the_answers(own: int | None, days_ago: int, removed: bool) -> None:
    made = Now() - timedelta(days=days_ago)
    make_file(make_site(retention_days=own), purpose="batch_output", bytes=9, created_at=made)

    assert purge_expired().files == int(removed)

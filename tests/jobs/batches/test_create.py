"""Creating a batch from posted requests: what is stored, what is rejected, and that it is atomic."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from inference import routing
from inference.models import Route
from jobs.batches import insert
from jobs.batches.create import CreatedBatch, create, parse_window
from jobs.batches.requests import MAX_MEMBERS
from jobs.errors import InvalidBatch
from jobs.models import BATCH_QUEUE, Batch, BatchState, Job, JobKind, JobState
from tenants.errors import IdempotencyConflict
from tenants.grant import Grant
from tenants.models import Site
from tests.factories import make_provider, make_route
from tests.jobs.batches.making import BODY, item, states_of, submission_of


@pytest.mark.django_db(transaction=True)
def test_members_are_jobs_in_the_order_of_the_requests(site: Site, desk_route: None, rung: list[int]) -> None:
    created = create(
        site, submission_of([item("z"), item("a"), item("Größe 5")], priority=50, max_attempts=2, request_id="req_1")
    )

    batch = Batch.objects.get()
    assert created == CreatedBatch(batch, created=True)
    assert (batch.state, batch.total, batch.model, batch.input_file) == (BatchState.IN_PROGRESS, 3, "desk", None)
    assert batch.in_progress_at is not None
    members = list(Job.objects.filter(batch=batch).order_by("id"))
    assert [job.custom_id for job in members] == ["z", "a", "Größe 5"]
    for job in members:
        assert (job.site, job.kind, job.model, job.provider) == (site, "chat", "desk", "sim-openai")
        assert (job.queue, job.state, job.priority, job.max_attempts) == (BATCH_QUEUE, JobState.QUEUED, 50, 2)
        assert (job.expires_at, job.request_id, job.attempt) == (batch.expires_at, "req_1", 0)
        assert b"rosebud" in (job.payload or b"")
    assert rung == [1]


def test_prompts_of_a_batch_are_encrypted_in_the_database(site: Site, desk_route: None) -> None:
    create(site, submission_of([item("r1")]))

    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM jobs_job")
        assert b"rosebud" not in bytes(cursor.fetchone()[0])


def test_models_of_members_may_differ(site: Site, desk_route: None) -> None:
    make_route("other", (make_provider("second"), "gpt-4o"))

    batch = create(site, submission_of([item("r1"), item("r2", body={**BODY, "model": "other"})])).batch

    assert batch.model == ""
    providers = Job.objects.filter(batch=batch).order_by("id").values_list("model", "provider")
    assert list(providers) == [("desk", "sim-openai"), ("other", "second")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JobKind.MESSAGES, {**BODY, "max_tokens": 5}),
        (JobKind.EMBEDDINGS, {"model": "desk", "input": "rosebud"}),
    ],
)
def test_batches_of_every_kind_of_job(site: Site, desk_route: None, kind: JobKind, body: dict[str, Any]) -> None:
    batch = create(site, submission_of([item("r1", body=body)], kind=kind)).batch

    assert Job.objects.get(batch=batch).kind == kind


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        (b"{oops", "invalid_json_line", "requests.1"),
        (b"[]", "invalid_json_line", "requests.1"),
        (b'{"custom_id":"r2","body":{"model":"\xff"}}', "invalid_json_line", "requests.1.body"),
        (item(...), "missing_required_parameter", "requests.1.custom_id"),
        (item("r2", body=...), "missing_required_parameter", "requests.1.body"),
        (item("r1"), "duplicate_custom_id", "requests.1.custom_id"),
        (item(""), "invalid_value", "requests.1.custom_id"),
        (item("x" * 201), "invalid_value", "requests.1.custom_id"),
        (item("line\nbreak"), "invalid_value", "requests.1.custom_id"),
        (item(7), "invalid_value", "requests.1.custom_id"),
        (item("r2", method="GET"), "invalid_method", "requests.1.method"),
        (item("r2", url="/v1/embeddings"), "invalid_url", "requests.1.url"),
        (item("r2", color="red"), "unknown_parameter", "requests.1.color"),
        (item("r2", body=[]), "invalid_value", "requests.1.body"),
        (item("r2", body={**BODY, "stream": True}), "invalid_value", "requests.1.body.stream"),
        (item("r2", body={**BODY, "temperature": 3}), "invalid_value", "requests.1.body.temperature"),
        (item("r2", body={**BODY, "model": "nobody"}), "model_not_found", "requests.1.body.model"),
        (item("r2", body={**BODY, "user": "x" * 300_000}), "line_too_long", "requests.1"),
    ],
)
def test_an_invalid_request_is_reported_and_nothing_is_stored(
    site: Site, desk_route: None, second: Any, code: str, param: str
) -> None:
    with pytest.raises(InvalidBatch) as rejected:
        create(site, submission_of([item("r1"), second]))

    (issue,) = rejected.value.issues
    assert (issue.code, issue.param, issue.line) == (code, param, None)
    assert not Batch.objects.exists()
    assert not Job.objects.exists()


def test_a_batch_without_requests_is_rejected(site: Site, desk_route: None) -> None:
    with pytest.raises(InvalidBatch, match="at least one"):
        create(site, submission_of([]))


def test_a_batch_of_too_many_requests_is_rejected(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.batches.requests.MAX_MEMBERS", 2)
    assert MAX_MEMBERS == 50_000

    with pytest.raises(InvalidBatch) as rejected:
        create(site, submission_of([item(f"r{n}") for n in range(4)]))

    assert [issue.code for issue in rejected.value.issues] == ["too_many_requests"]


def test_up_to_a_hundred_issues_are_reported(site: Site, desk_route: None) -> None:
    with pytest.raises(InvalidBatch) as rejected:
        create(site, submission_of([item("r1"), item("r1"), item("r2"), *[b"{"] * 150]))

    assert len(rejected.value.issues) == 100
    assert [issue.param for issue in rejected.value.issues[:2]] == ["requests.1.custom_id", "requests.3"]


def test_limits_of_the_site_and_of_the_token_apply(site: Site, desk_route: None) -> None:
    for grant, code, param in (
        (Grant("another"), "model_not_allowed", "requests.0.body.model"),
        (Grant(max_tokens=10), "invalid_value", "requests.0.body.max_tokens"),
    ):
        with pytest.raises(InvalidBatch) as rejected:
            create(site, submission_of([item("r1", body={**BODY, "max_tokens": 11})], grant=grant))
        assert (rejected.value.issues[0].code, rejected.value.issues[0].param) == (code, param)


def test_the_same_key_and_requests_return_the_same_batch(site: Site, desk_route: None) -> None:
    first = create(site, submission_of([item("r1")], idempotency_key="night-1"))
    reordered = {"body": {"messages": BODY["messages"], "model": "desk"}, "custom_id": "r1"}
    Route.objects.all().delete()
    routing.invalidate_cache()

    again = create(site, submission_of([reordered], idempotency_key="night-1", request_id="another"))

    assert again == CreatedBatch(first.batch, created=False)
    assert Job.objects.count() == 1


@pytest.mark.parametrize("change", [{"requests": ()}, {"metadata": {"a": "b"}}, {"completion_window": "1h"}])
def test_the_same_key_with_a_different_batch_is_rejected(site: Site, desk_route: None, change: dict[str, Any]) -> None:
    create(site, submission_of([item("r1")], idempotency_key="night-1"))

    with pytest.raises(IdempotencyConflict):
        create(site, submission_of([item("r1")], **{"idempotency_key": "night-1", **change}))


@pytest.mark.django_db(transaction=True)
def test_concurrent_calls_with_one_key_create_one_batch(site: Site, desk_route: None, rung: list[int]) -> None:
    found: list[CreatedBatch] = []
    start = threading.Barrier(4)

    def go() -> None:
        start.wait()
        found.append(create(site, submission_of([item("r1"), item("r2")], idempotency_key="night-1")))
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each.batch.id for each in found}) == 1
    assert [each.created for each in found].count(True) == 1
    assert Job.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_batch_whose_connection_breaks_is_rolled_back(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insert, "CHUNK_ROWS", 2)
    copy = insert._copy

    def break_second(rows: list[tuple[Any, ...]]) -> None:
        if Job.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        copy(rows)

    monkeypatch.setattr(insert, "_copy", break_second)

    with pytest.raises(OperationalError):
        create(site, submission_of([item(f"r{n}") for n in range(5)]))

    connection.close()
    assert not Batch.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("24h", timedelta(hours=24)),
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("168h", timedelta(days=7)),
        ("8d", None),
        ("0h", None),
        ("30m", None),
        ("24", None),
        ("٢h", None),
    ],
)
def test_completion_windows_are_between_an_hour_and_a_week(text: str, window: timedelta | None) -> None:
    assert parse_window(text) == window


def test_a_batch_expires_at_the_end_of_its_window(site: Site, desk_route: None) -> None:
    batch = create(site, submission_of([item("r1")], completion_window="2h")).batch

    assert abs(batch.expires_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    assert states_of(batch) == {"r1": "queued"}

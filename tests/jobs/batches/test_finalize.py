"""Finalizing a batch: once, when all its members have ended, with counts, usage, files and event."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from core.ids import to_public
from jobs.batches import finalize
from jobs.batches.finalize import finalize_ended, summarize, write_end
from jobs.batches.results import error_lines, output_lines, result_lines
from jobs.models import Batch, BatchState, File, Job, JobState, Pause
from metering.models import UsageEvent, UsageOutcome
from tenants.models import Site
from tests.jobs.batches.making import ANSWER, end, make_batch
from webhooks.models import Event


def bill(job: Job, **fields: Any) -> None:
    """A billed call of a member."""
    given = {"input_tokens": 10, "output_tokens": 4, "cost_pico_usd": 1000, "price_version": "test", **fields}
    UsageEvent.objects.create(
        dedupe_key=f"{job.id}:1:1", site_id=job.site_id, job_id=job.id, call=1, outcome=UsageOutcome.OK, billable=True,
        provider="sim-openai", model="desk", upstream_model="gpt-4o-mini", **given,
    )  # fmt: skip


def finalized(batch: Batch) -> Batch:
    finalize_ended()
    return Batch.objects.get(id=batch.id)


def test_a_batch_with_unfinished_members_is_not_finalized(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    end(batch, "r1")

    assert finalized(batch).state == BatchState.IN_PROGRESS
    assert not Event.objects.exists()


def test_a_cost_that_exceeds_the_column_does_not_keep_a_batch_from_ending(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    for name in ("r1", "r2"):
        bill(end(batch, name), cost_pico_usd=2**63 - 1)

    found = finalized(batch)

    assert (found.state, found.cost_pico_usd) == (BatchState.COMPLETED, 2**63 - 1)


def test_a_batch_that_cannot_be_finalized_does_not_block_the_others(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = make_batch(site, 1), make_batch(site, 1)
    for batch in (broken, fine):
        end(batch, "r1")

    def break_first(batch: Batch) -> Any:
        if batch.id == broken.id:
            raise ArithmeticError
        return summarize(batch)

    monkeypatch.setattr(finalize, "summarize", break_first)

    assert finalize_ended() == 1
    fine.refresh_from_db()
    assert fine.state == BatchState.COMPLETED


def test_a_batch_whose_members_ended_is_completed_with_counts_cost_and_files(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 3, metadata={"night": "1"})
    bill(end(batch, "r1"), cached_input_tokens=3)
    bill(end(batch, "r2"), reasoning_tokens=2)
    end(batch, "r3", JobState.FAILED, error_code="bad_request", error_message="No.")

    found = finalized(batch)

    assert (found.state, found.completed, found.failed) == (BatchState.COMPLETED, 2, 1)
    assert (found.cost_pico_usd, found.input_tokens, found.output_tokens) == (2000, 20, 8)
    assert (found.cached_input_tokens, found.reasoning_tokens) == (3, 2)
    assert found.finalizing_at is not None
    assert found.completed_at is not None
    assert found.output_file is not None
    assert found.error_file is not None
    assert found.output_file.bytes == len(b"".join(output_lines(found)))
    assert found.error_file.bytes == len(b"".join(error_lines(found)))
    assert (found.output_file.purpose, found.output_file.expires_at) == ("batch_output", None)


def test_the_end_of_a_batch_has_one_event(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1, metadata={"night": "1"})
    bill(end(batch, "r1"))

    finalize_ended()
    assert finalize_ended() == 0

    (event,) = Event.objects.all()
    assert (event.type, event.subject_id, event.is_terminal) == ("batch.completed", batch.id, True)
    data = json.loads(event.payload)["data"]
    assert data["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert (data["batch_id"], data["status"]) == (batch.public_id, "completed")
    assert (data["cost_usd"], data["metadata"]) == ("0.000000001000", {"night": "1"})
    assert data["results_url"].endswith(f"/v1/batches/{batch.public_id}/results")
    assert data["output_file_id"] == File.objects.get().public_id
    assert data["error_file_id"] is None


def test_an_unknown_cost_is_not_zero(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    bill(end(batch, "r1"), price_version="", cost_pico_usd=0)

    assert finalized(batch).cost_pico_usd is None


def test_output_files_expire_after_the_requested_time(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1, output_expires_seconds=3600)
    end(batch, "r1")

    file = finalized(batch).output_file

    assert file is not None
    assert file.expires_at is not None
    assert timedelta(minutes=59) < file.expires_at - file.created_at < timedelta(minutes=61)


def test_the_pause_of_a_batch_is_deleted_at_its_end(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    Pause.objects.create(batch=batch)
    end(batch, "r1")

    assert finalized(batch).state == BatchState.COMPLETED
    assert not Pause.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_finalize_a_batch_once(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    end(batch, "r1")
    end(batch, "r2", JobState.FAILED)
    start, did = threading.Barrier(4), list[int]()

    def go() -> None:
        start.wait()
        did.append(finalize_ended())
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(did) == 1
    assert Event.objects.count() == 1
    assert File.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_the_second_write_of_an_end_has_no_effect(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 1)
    end(batch, "r1")
    found = summarize(batch)
    finalize_ended()

    assert not write_end(batch.id, found)
    assert Event.objects.count() == File.objects.count() == 1


def test_a_batch_is_finalized_by_another_worker_after_a_crash(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(site, 1)
    end(batch, "r1")
    monkeypatch.setattr(finalize, "summarize", lambda batch: 1 / 0)
    assert finalize_ended() == 0
    assert Batch.objects.get().state == BatchState.FINALIZING

    monkeypatch.undo()
    assert finalized(batch).state == BatchState.COMPLETED


# Result lines


def lines_of(found: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in found]


def test_each_member_has_one_line_in_openais_format(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 3)
    first = end(batch, "r1")
    last = end(batch, "r3", JobState.FAILED, error_code="bad_request", error_message="No.")

    assert lines_of(result_lines(batch)) == [
        {
            "id": to_public("batch_req", first.id),
            "custom_id": "r1",
            "response": {"status_code": 200, "request_id": first.public_id, "body": {**ANSWER, "custom": "r1"}},
            "error": None,
        },
        {
            "id": to_public("batch_req", last.id),
            "custom_id": "r3",
            "response": None,
            "error": {"code": "bad_request", "message": "No."},
        },
    ]
    assert [each["custom_id"] for each in lines_of(output_lines(batch))] == ["r1"]
    assert [each["custom_id"] for each in lines_of(error_lines(batch))] == ["r3"]


def test_result_lines_are_in_the_order_of_the_input_over_many_pages(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 120)
    Job.objects.update(state=JobState.FAILED, finished_at=Now(), error_code="x")

    assert [each["custom_id"] for each in lines_of(result_lines(batch))] == [f"r{n}" for n in range(1, 121)]


def test_an_erased_or_broken_answer_has_an_error_line(site: Site, desk_route: None) -> None:
    batch = make_batch(site, 2)
    erased, broken = end(batch, "r1"), end(batch, "r2")
    Job.objects.filter(id=erased.id).update(result=None)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET result = 'broken' WHERE id = %s", [broken.id])

    assert [each["error"]["code"] for each in lines_of(result_lines(batch))] == ["result_erased", "result_unreadable"]

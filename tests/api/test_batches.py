"""`/v1/batches` over HTTP."""

import json
from decimal import Decimal
from typing import Any, cast

import pytest
from django.http import HttpResponse
from pytest_django import Settings

from jobs.batches.expand import expand_one
from jobs.batches.finalize import finalize_ended
from jobs.models import Batch, Job, JobState
from tenants.credentials import NewSite
from tests.api.calling import CHAT, Caller, error_of
from tests.factories import make_file
from tests.jobs.batches.making import end, to_file
from tests.request_signing import token

URL = "/v1/chat/completions"


def batch_body(count: int = 2, **changes: Any) -> dict[str, Any]:
    """Return the body of a batch with requests r1, r2, …; a field with the value `...` is omitted."""
    requests = [{"custom_id": f"r{n}", "body": CHAT} for n in range(1, count + 1)]
    fields = {"endpoint": URL, "requests": requests, **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def read(response: HttpResponse) -> dict[str, Any]:
    assert response.status_code == 200, response.content
    return cast(dict[str, Any], json.loads(response.content))


def lines_of(response: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


def test_an_inline_batch_is_in_progress_immediately(desk: Caller) -> None:
    found = read(desk.post("/v1/batches", batch_body(metadata={"night": "1"}, priority="low", max_attempts=2)))

    batch = Batch.objects.get()
    assert (found["id"], found["object"], found["status"]) == (batch.public_id, "batch", "in_progress")
    assert (found["endpoint"], found["completion_window"], found["model"]) == (URL, "24h", "gpt-5-mini")
    assert found["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
    assert found["counts"]["queued"] == 2
    assert (found["metadata"], found["priority"], found["max_attempts"]) == ({"night": "1"}, "low", 2)
    assert (found["input_file_id"], found["errors"], found["cost_usd"]) == (None, None, "0.000000000000")
    assert found["expires_at"] - found["created_at"] in (86_399, 86_400)


def test_a_batch_with_a_file_is_validated_later(desk: Caller, bakery: NewSite) -> None:
    line = {"custom_id": "r1", "method": "POST", "url": URL, "body": CHAT}
    file = make_file(bakery.site, to_file([line]))

    made = read(desk.post("/v1/batches", batch_body(requests=..., input_file_id=file.public_id)))
    expand_one()
    found = read(desk.get(f"/v1/batches/{made['id']}"))

    assert (made["status"], made["input_file_id"]) == ("validating", file.public_id)
    assert (found["status"], found["request_counts"]["total"]) == ("in_progress", 1)


def test_a_batch_with_an_invalid_file_lists_the_errors(desk: Caller, bakery: NewSite) -> None:
    file = make_file(bakery.site, b"oops\n")
    made = read(desk.post("/v1/batches", batch_body(requests=..., input_file_id=file.public_id)))
    expand_one()

    found = read(desk.get(f"/v1/batches/{made['id']}"))

    assert found["status"] == "failed"
    assert found["errors"] == {
        "object": "list",
        "data": [
            {"code": "invalid_json_line", "message": "This is not JSON in UTF-8.", "param": None, "line": 1},
        ],
    }


def test_an_invalid_batch_reports_its_first_error_and_lists_all(desk: Caller) -> None:
    body = batch_body()
    body["requests"] += [{"custom_id": "r3", "body": {**CHAT, "model": "nobody"}}, {"body": CHAT}]

    response = desk.post("/v1/batches", body)

    assert response.status_code == 400
    error = json.loads(response.content)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "requests.2.body.model")
    assert error["type"] == "invalid_request_error"
    assert error["request_id"] == response["X-Request-ID"]
    assert [(each["code"], each["param"]) for each in error["errors"]] == [
        ("model_not_found", "requests.2.body.model"),
        ("missing_required_parameter", "requests.3.custom_id"),
    ]
    assert error["errors"][0]["message"] == error["message"]
    assert not Batch.objects.exists()


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"requests": ...}, "missing_required_parameter", "input_file_id"),
        ({"input_file_id": "file_1"}, "missing_required_parameter", "input_file_id"),
        ({"endpoint": "/v1/responses"}, "invalid_value", "endpoint"),
        ({"endpoint": ...}, "missing_required_parameter", "endpoint"),
        ({"requests": "all"}, "invalid_value", "requests"),
        ({"requests": []}, "empty_batch", None),
        ({"completion_window": "30m"}, "invalid_value", "completion_window"),
        ({"progress_seconds": 1}, "invalid_value", "progress_seconds"),
        ({"dry_run": "yes"}, "invalid_value", "dry_run"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "invalid_value",
            "output_expires_after.seconds",
        ),
        ({"color": "red"}, "unknown_parameter", "color"),
    ],
)
def test_the_fields_of_a_batch_are_validated(
    desk: Caller, changes: dict[str, Any], code: str, param: str | None
) -> None:
    response = desk.post("/v1/batches", batch_body(**changes))

    error = json.loads(response.content)["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    assert not Batch.objects.exists()


@pytest.mark.parametrize("body", [b"{", b'{"requests":[{]}', b'{"requests":[],"a":1,"a":1', b"[]", b"\xff"])
def test_a_body_that_is_not_json_is_malformed(desk: Caller, body: bytes) -> None:
    assert error_of(desk.post("/v1/batches", body))["code"] == "malformed_body"


def test_a_missing_or_foreign_file_is_not_found(desk: Caller, florist: NewSite) -> None:
    file = make_file(florist.site, b"{}\n")

    for file_id in ("file_nonsense", file.public_id):
        response = desk.post("/v1/batches", batch_body(requests=..., input_file_id=file_id))
        assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


def test_a_repeated_idempotency_key_returns_the_same_batch(desk: Caller) -> None:
    first = desk.post("/v1/batches", batch_body(), idempotency_key="night-1")
    again = desk.post("/v1/batches", batch_body(), idempotency_key="night-1")
    other = desk.post("/v1/batches", batch_body(3), idempotency_key="night-1")

    assert read(first)["id"] == read(again)["id"]
    assert (first.has_header("Idempotent-Replayed"), again["Idempotent-Replayed"]) == (False, "true")
    assert (other.status_code, error_of(other)["code"]) == (422, "idempotency_key_reused")


def test_a_batch_body_may_exceed_that_of_a_job_up_to_its_own_limit(desk: Caller, settings: Settings) -> None:
    settings.MAX_BATCH_BODY_BYTES = 400_000
    padded = {**CHAT, "messages": [{"role": "user", "content": "x" * 100_000}]}
    requests = [{"custom_id": f"r{n}", "body": padded} for n in range(3)]

    assert desk.post("/v1/batches", batch_body(requests=requests)).status_code == 200
    assert desk.post("/v1/batches", batch_body(requests=requests * 2)).status_code == 413
    assert desk.post("/v1/jobs", {"kind": "chat", "body": {**padded, "user": "x" * 200_000}}).status_code == 413


def test_batches_are_listed_newest_first_in_pages(desk: Caller) -> None:
    ids = [read(desk.post("/v1/batches", batch_body(1)))["id"] for _ in range(3)]

    first = read(desk.get("/v1/batches?limit=2"))
    second = read(desk.get(f"/v1/batches?limit=2&after={first['last_id']}"))

    assert [each["id"] for each in first["data"]] == ids[:0:-1]
    assert (first["object"], first["first_id"], first["has_more"]) == ("list", ids[2], True)
    assert ([each["id"] for each in second["data"]], second["has_more"]) == (ids[:1], False)


def test_a_finished_batch_shows_counts_times_and_files(desk: Caller) -> None:
    made = read(desk.post("/v1/batches", batch_body(3)))
    batch = Batch.objects.get()
    end(batch, "r1")
    end(batch, "r2", JobState.FAILED)
    end(batch, "r3", JobState.CANCELED)
    finalize_ended()

    found = read(desk.get(f"/v1/batches/{made['id']}"))

    assert found["status"] == "completed"
    assert found["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    assert found["counts"] == {"queued": 0, "running": 0, "succeeded": 1, "failed": 1, "canceled": 1, "expired": 0}
    assert found["completed_at"] >= found["finalizing_at"] >= found["in_progress_at"]
    assert found["output_file_id"].startswith("file_")
    assert found["error_file_id"] != found["output_file_id"]


def test_results_can_be_read_at_any_time(desk: Caller) -> None:
    made = read(desk.post("/v1/batches", batch_body(3)))
    batch = Batch.objects.get()
    end(batch, "r2")

    partial = desk.get(f"/v1/batches/{made['id']}/results")
    end(batch, "r1")
    end(batch, "r3", JobState.FAILED)
    finalize_ended()
    whole = desk.get(f"/v1/batches/{made['id']}/results")

    assert (partial["X-Results-Complete"], whole["X-Results-Complete"]) == ("false", "true")
    assert partial["Content-Type"] == "application/jsonl"
    assert [each["custom_id"] for each in lines_of(partial)] == ["r2"]
    assert [each["custom_id"] for each in lines_of(whole)] == ["r1", "r2", "r3"]


def test_a_request_of_a_batch_is_a_job_with_its_batch_id(desk: Caller) -> None:
    made = read(desk.post("/v1/batches", batch_body(1)))
    end(Batch.objects.get(), "r1")

    (line,) = lines_of(desk.get(f"/v1/batches/{made['id']}/results"))
    job = read(desk.get(f"/v1/jobs/{line['response']['request_id']}"))

    assert (job["batch_id"], job["custom_id"], job["state"]) == (made["id"], "r1", "succeeded")


def test_a_batch_can_be_paused_and_resumed(desk: Caller) -> None:
    path = f"/v1/batches/{read(desk.post('/v1/batches', batch_body()))['id']}"

    assert read(desk.post(f"{path}/pause"))["paused"] is True
    assert read(desk.get(path))["paused"] is True
    assert read(desk.post(f"{path}/resume"))["paused"] is False


def test_a_canceled_batch_is_cancelling_and_then_cancelled(desk: Caller) -> None:
    path = f"/v1/batches/{read(desk.post('/v1/batches', batch_body()))['id']}"

    canceling = read(desk.post(f"{path}/cancel"))
    finalize_ended()
    found = read(desk.get(path))

    assert (canceling["status"], found["status"]) == ("cancelling", "cancelled")
    assert found["counts"]["canceled"] == 2
    assert found["cancelled_at"] >= found["cancelling_at"]


def test_the_failed_requests_of_a_batch_can_be_retried(desk: Caller) -> None:
    path = f"/v1/batches/{read(desk.post('/v1/batches', batch_body()))['id']}"
    assert error_of(desk.post(f"{path}/retry"))["code"] == "batch_not_retryable"
    batch = Batch.objects.get()
    end(batch, "r1")
    end(batch, "r2", JobState.FAILED)
    finalize_ended()

    again = read(desk.post(f"{path}/retry"))

    assert again["retry_of"] == batch.public_id
    assert (again["status"], again["request_counts"]["total"]) == ("in_progress", 1)
    assert error_of(desk.post(f"{path}/cancel"))["code"] == "batch_ended"
    assert desk.post(f"{path}/pause").status_code == 409


def test_another_sites_batch_is_not_found(desk: Caller, florist: NewSite) -> None:
    path = f"/v1/batches/{read(desk.post('/v1/batches', batch_body()))['id']}"
    other = Caller(florist)

    for response in (
        other.get(path),
        other.get(f"{path}/results"),
        *(other.post(f"{path}/{what}") for what in ("cancel", "pause", "resume", "retry")),
    ):
        assert (response.status_code, error_of(response)["code"]) == (404, "not_found")
    assert read(other.get("/v1/batches"))["data"] == []


def test_a_narrow_token_reads_and_cannot_write(desk: Caller, bakery: NewSite) -> None:
    batch_id = read(desk.post("/v1/batches", batch_body()))["id"]
    reading = {"authorization": f"Bearer {token(bakery, scope='jobs:read')}"}

    assert desk.get(f"/v1/batches/{batch_id}", **reading).status_code == 200
    for path in ("/v1/batches", f"/v1/batches/{batch_id}/cancel", f"/v1/batches/{batch_id}/retry"):
        assert desk.post(path, batch_body(), **reading).status_code == 403


# Estimates


def test_an_estimate_returns_tokens_and_cost_and_stores_nothing(desk: Caller) -> None:
    bounded = {**CHAT, "max_completion_tokens": 100}
    requests = [{"custom_id": f"r{n}", "body": bounded} for n in range(10)]

    found = read(desk.post("/v1/batches", batch_body(requests=requests, dry_run=True)))

    assert (found["object"], found["requests"], found["max_output_tokens"]) == ("batch.estimate", 10, 1000)
    assert found["input_tokens"] > 10
    assert 0 < float(found["cost_usd"]["low"]) < float(found["cost_usd"]["high"])
    assert [each["model"] for each in found["models"]] == ["gpt-5-mini"]
    assert not Batch.objects.exists()
    assert not Job.objects.exists()


def test_unbounded_responses_have_no_maximum_cost(desk: Caller) -> None:
    found = read(desk.post("/v1/batches", batch_body(2, dry_run=True)))

    assert (found["max_output_tokens"], found["unbounded_requests"]) == (None, 2)
    assert found["cost_usd"]["high"] is None
    assert float(found["cost_usd"]["low"]) > 0


def test_an_estimate_uses_the_price_of_the_requested_tier(desk: Caller) -> None:
    bounded = {**CHAT, "max_completion_tokens": 100}

    def estimated(**options: str) -> dict[str, Decimal]:
        requests = [{"custom_id": "r1", "body": {**bounded, **options}}]
        cost = read(desk.post("/v1/batches", batch_body(requests=requests, dry_run=True)))["cost_usd"]
        return {name: Decimal(usd) for name, usd in cost.items()}

    standard, flex, priority = estimated(), estimated(service_tier="flex"), estimated(service_tier="priority")

    # The flex tier of gpt-5-mini costs half of the standard price, the priority tier 1.8 times as much.
    assert flex == {name: usd / 2 for name, usd in standard.items()}
    assert priority == {name: usd * Decimal("1.8") for name, usd in standard.items()}


def test_a_batch_with_a_file_can_be_estimated(desk: Caller, bakery: NewSite) -> None:
    line = {"custom_id": "r1", "method": "POST", "url": URL, "body": CHAT}
    good, bad = make_file(bakery.site, to_file([line])), make_file(bakery.site, to_file([line, line]))

    found = read(desk.post("/v1/batches", batch_body(requests=..., input_file_id=good.public_id, dry_run=True)))
    refused = desk.post("/v1/batches", batch_body(requests=..., input_file_id=bad.public_id, dry_run=True))

    assert found["requests"] == 1
    assert json.loads(refused.content)["error"]["errors"][0]["line"] == 2
    assert not Batch.objects.exists()

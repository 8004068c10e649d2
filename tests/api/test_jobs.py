"""`/v1/jobs` over HTTP."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.http import HttpResponse

from core import clock
from core.ids import new_uuid, to_public
from jobs.models import Attempt, Job, JobState
from metering.models import UsageEvent, UsageOutcome
from tenants.credentials import NewSite
from tenants.models import Site
from tests.api.calling import CHAT, Caller, error_of, job_body
from tests.factories import make_batch, make_job
from tests.request_signing import token


def read(response: HttpResponse, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.content[:500]
    found: dict[str, Any] = json.loads(response.content)
    return found


def end(job: Job, state: JobState, **changes: Any) -> None:
    Job.objects.filter(id=job.id).update(state=state, finished_at=Now(), **changes)


# Submit


def test_a_submitted_job_is_accepted_and_shown_as_queued(desk: Caller) -> None:
    shown = read(desk.post("/v1/jobs", job_body(metadata={"post_id": "4711"}, priority="high", max_attempts=5)), 202)

    job = Job.objects.get()
    assert shown["id"] == job.public_id
    assert shown["created_at"].endswith("Z")
    assert {name: shown[name] for name in shown if name not in ("id", "created_at", "available_at")} == {
        "object": "job",
        "kind": "chat",
        "state": "queued",
        "model": "gpt-5-mini",
        "queue": "default",
        "priority": "high",
        "metadata": {"post_id": "4711"},
        "idempotency_key": None,
        "expires_at": None,
        "finished_at": None,
        "erased_at": None,
        "attempt": 0,
        "max_attempts": 5,
        "retry_of": None,
        "batch_id": None,
        "custom_id": None,
        "error": None,
        "usage": None,
        "cost_usd": None,
        "result": None,
        "attempts": [],
    }


def test_a_job_stores_the_id_of_its_request(desk: Caller) -> None:
    response = desk.post("/v1/jobs", job_body())

    assert Job.objects.get().request_id == response["X-Request-ID"]


def test_all_three_authentication_methods_are_accepted(desk: Caller, bakery: NewSite) -> None:
    body = json.dumps(job_body()).encode()

    assert desk.post("/v1/jobs", body).status_code == 202
    assert desk.post("/v1/jobs", body, authorization=f"Bearer {token(bakery)}").status_code == 202
    assert desk.post_signed("/v1/jobs", body).status_code == 202
    assert Job.objects.filter(site=bakery.site).count() == 3


def test_a_job_accepts_available_at_and_expires_at(desk: Caller) -> None:
    at, until = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)

    shown = read(desk.post("/v1/jobs", job_body(available_at=at.isoformat(), expires_at=until.isoformat())), 202)

    assert datetime.fromisoformat(shown["available_at"]) == at
    assert datetime.fromisoformat(shown["expires_at"]) == until


@pytest.mark.parametrize("key", ["order-4711", "x" * 255, "with space and ~"])
def test_the_same_idempotency_key_and_request_return_the_same_job(desk: Caller, key: str) -> None:
    first = desk.post("/v1/jobs", job_body(), idempotency_key=key)
    again = desk.post("/v1/jobs", job_body(), idempotency_key=key)

    assert read(again, 202)["id"] == read(first, 202)["id"]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert read(again, 202)["idempotency_key"] == key
    assert Job.objects.count() == 1


def test_the_same_idempotency_key_with_another_request_is_rejected(desk: Caller) -> None:
    desk.post("/v1/jobs", job_body(), idempotency_key="order-4711")

    response = desk.post("/v1/jobs", job_body(metadata={"a": "b"}), idempotency_key="order-4711")

    assert (response.status_code, error_of(response)["code"]) == (422, "idempotency_key_reused")
    assert error_of(response)["param"] == "Idempotency-Key"
    assert Job.objects.count() == 1


def test_two_sites_may_use_the_same_idempotency_key(desk: Caller, florist: NewSite) -> None:
    one = read(desk.post("/v1/jobs", job_body(), idempotency_key="order-4711"), 202)
    other = read(Caller(florist).post("/v1/jobs", job_body(), idempotency_key="order-4711"), 202)

    assert one["id"] != other["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "ünïcödë"])
def test_an_invalid_idempotency_key_is_rejected(desk: Caller, key: str) -> None:
    response = desk.post("/v1/jobs", job_body(), idempotency_key=key)

    assert (response.status_code, error_of(response)["param"]) == (400, "Idempotency-Key")
    assert not Job.objects.exists()


WRONG: list[tuple[dict[str, Any], int, str | None]] = [
    ({"kind": ...}, 400, "kind"),
    ({"kind": "poem"}, 400, "kind"),
    ({"kind": 5}, 400, "kind"),
    ({"kind": None}, 400, "kind"),
    ({"kind": ["chat"]}, 400, "kind"),
    ({"body": ...}, 400, "body"),
    ({"body": "text"}, 400, "body"),
    ({"body": []}, 400, "body"),
    ({"body": None}, 400, "body"),
    ({"body": {}}, 400, "body.model"),
    ({"body": {**CHAT, "model": "no-such-model"}}, 404, "body.model"),
    ({"body": {**CHAT, "model": 5}}, 400, "body.model"),
    ({"body": {**CHAT, "model": ""}}, 400, "body.model"),
    ({"body": {**CHAT, "messages": []}}, 400, "body.messages"),
    ({"body": {**CHAT, "messages": "hello"}}, 400, "body.messages"),
    ({"body": {**CHAT, "max_tokens": -1}}, 400, "body.max_tokens"),
    ({"body": {**CHAT, "temperature": "hot"}}, 400, "body.temperature"),
    ({"body": {**CHAT, "stream": True}}, 400, "body.stream"),
    ({"metadata": []}, 400, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
    ({"metadata": {"": "x"}}, 400, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, 400, "metadata"),
    ({"metadata": {"k": 5}}, 400, "metadata.k"),
    ({"metadata": {"k": "x" * 513}}, 400, "metadata.k"),
    ({"priority": "urgent"}, 400, "priority"),
    ({"priority": 1}, 400, "priority"),
    ({"max_attempts": 0}, 400, "max_attempts"),
    ({"max_attempts": -3}, 400, "max_attempts"),
    ({"max_attempts": 11}, 400, "max_attempts"),
    ({"max_attempts": "3"}, 400, "max_attempts"),
    ({"max_attempts": True}, 400, "max_attempts"),
    ({"max_attempts": 2.5}, 400, "max_attempts"),
    ({"available_at": "tomorrow"}, 400, "available_at"),
    ({"available_at": 1795251603}, 400, "available_at"),
    ({"available_at": "9999-12-31T23:59:59-12:00"}, 400, "available_at"),
    ({"available_at": "0001-01-01T00:00:00+12:00"}, 400, "available_at"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, 400, "expires_at"),
    ({"available_at": "2100-01-02T00:00:00Z", "expires_at": "2100-01-01T00:00:00Z"}, 400, "expires_at"),
    ({"prompt": "hello"}, 400, "prompt"),
]


@pytest.mark.parametrize(("changes", "status", "param"), WRONG, ids=[json.dumps(w[0], default=str)[:40] for w in WRONG])
def test_an_invalid_request_is_explained_and_nothing_is_stored(
    desk: Caller, changes: dict[str, Any], status: int, param: str | None
) -> None:
    response = desk.post("/v1/jobs", job_body(**changes))

    error = error_of(response)
    assert (response.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert not Job.objects.exists()


def test_a_model_that_the_site_may_not_use_is_rejected(desk: Caller) -> None:
    Site.objects.update(allowed_models=["gpt-4o"])

    response = desk.post("/v1/jobs", job_body())

    assert (response.status_code, error_of(response)["code"]) == (403, "model_not_allowed")
    assert not Job.objects.exists()


def test_a_token_for_another_model_is_rejected(desk: Caller, bakery: NewSite) -> None:
    response = desk.post("/v1/jobs", job_body(), authorization=f"Bearer {token(bakery, model='gpt-4o')}")

    assert (response.status_code, error_of(response)["code"]) == (403, "model_not_allowed")


def test_the_max_tokens_of_a_token_are_enforced(desk: Caller, bakery: NewSite) -> None:
    narrow = f"Bearer {token(bakery, max_tokens=10)}"

    too_many = desk.post("/v1/jobs", job_body(body={**CHAT, "max_tokens": 11}), authorization=narrow)
    just_right = desk.post("/v1/jobs", job_body(body={**CHAT, "max_tokens": 10}), authorization=narrow)

    assert (too_many.status_code, just_right.status_code) == (400, 202)


@pytest.mark.parametrize(
    ("scope", "method", "path", "allowed"),
    [
        ("jobs:read", "GET", "/v1/jobs", True),
        ("jobs:read", "POST", "/v1/jobs", False),
        ("jobs:write", "POST", "/v1/jobs", True),
        ("jobs:write", "GET", "/v1/jobs", False),
        ("jobs:write", "GET", "/v1/jobs/job_x", False),
        ("jobs:read", "POST", "/v1/jobs/job_x/cancel", False),
        ("jobs:read", "POST", "/v1/jobs/job_x/retry", False),
        ("jobs:write", "GET", "/v1/webhook-endpoints", False),
        ("webhooks:read", "GET", "/v1/webhook-endpoints", True),
        ("webhooks:read", "POST", "/v1/webhook-endpoints", False),
        ("webhooks:read", "GET", "/v1/deliveries", True),
        ("", "GET", "/v1/jobs", False),
    ],
)
def test_a_narrow_token_allows_only_its_scopes(
    desk: Caller, bakery: NewSite, scope: str, method: str, path: str, allowed: bool
) -> None:
    body = job_body() if method == "POST" else None

    response = desk.call(method, path, body, authorization=f"Bearer {token(bakery, scope=scope)}")

    if allowed:
        assert response.status_code in (200, 202)
    else:
        assert (response.status_code, error_of(response)["code"]) == (403, "insufficient_scope")


# Read


def test_a_job_is_shown_with_its_attempts_calls_usage_cost_and_result(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site, model="gpt-5-mini", result=b'{"id": "chatcmpl-1"}', attempt=2)
    end(job, JobState.SUCCEEDED)
    Attempt.objects.create(
        job=job,
        number=1,
        worker_id=new_uuid(),
        outcome="error",
        error_code="overloaded",
        error_message="busy",
        ended_at=clock.now(),
    )
    Attempt.objects.create(job=job, number=2, worker_id=new_uuid(), outcome="ok", ended_at=clock.now())
    about = {"site": bakery.site, "job_id": job.id, "provider": "sim", "model": "gpt-5-mini", "upstream_model": "m"}
    UsageEvent.objects.create(
        **about,
        dedupe_key="a",
        attempt=1,
        call=1,
        outcome=UsageOutcome.ERROR,
        http_status=503,
        error_kind="overloaded",
        error_code="server_is_overloaded",
        duration_ms=12,
    )
    UsageEvent.objects.create(
        **about,
        dedupe_key="b",
        attempt=2,
        call=1,
        outcome=UsageOutcome.OK,
        http_status=200,
        billable=True,
        input_tokens=19,
        output_tokens=10,
        cached_input_tokens=3,
        cost_pico_usd=123_456_789,
        price_version="v1",
        duration_ms=345,
    )

    shown = read(desk.get(f"/v1/jobs/{job.public_id}"))

    assert shown["state"] == "succeeded"
    assert shown["result"] == {"id": "chatcmpl-1"}
    assert shown["usage"] == {"input_tokens": 19, "output_tokens": 10, "total_tokens": 29, "cached_input_tokens": 3}
    assert shown["cost_usd"] == "0.000123456789"
    first, second = shown["attempts"]
    assert (first["number"], first["outcome"]) == (1, "error")
    assert first["error"] == {"code": "overloaded", "message": "busy"}
    assert (second["outcome"], second["error"]) == ("ok", None)
    call = first["calls"][0]
    assert call.pop("started_at").endswith("Z")
    assert call == {
        "call": 1,
        "provider": "sim",
        "upstream_model": "m",
        "outcome": "error",
        "http_status": 503,
        "error_kind": "overloaded",
        "error_code": "server_is_overloaded",
        "billable": False,
        "estimated": False,
        "input_tokens": 0,
        "output_tokens": 0,
        "tier": "standard",
        "cost_usd": None,
        "duration_ms": 12,
    }
    assert (second["calls"][0]["billable"], second["calls"][0]["cost_usd"]) == (True, "0.000123456789")


def test_a_failed_job_has_an_error(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)
    end(job, JobState.FAILED, error_code="rejected", error_message="no")

    shown = read(desk.get(f"/v1/jobs/{job.public_id}"))

    assert shown["error"] == {"code": "rejected", "message": "no"}
    assert (shown["result"], shown["cost_usd"]) == (None, None)
    assert shown["finished_at"].endswith("Z")


@pytest.mark.parametrize("act", ["", "/cancel", "/retry"])
def test_another_sites_job_an_unknown_and_a_malformed_id_get_the_same_404(
    desk: Caller, florist: NewSite, act: str
) -> None:
    ids = [
        make_job(florist.site).public_id,
        to_public("job", new_uuid()),
        "nonsense",
        "job_%00",
        "%F0%9F%8D%9E",
        "x" * 500,
    ]

    answers = [desk.call("POST" if act else "GET", f"/v1/jobs/{job_id}{act}") for job_id in ids]

    errors = [{**error_of(answer), "request_id": ""} for answer in answers]
    assert {answer.status_code for answer in answers} == {404}
    assert errors == [errors[0]] * len(ids)


# List


def test_jobs_are_listed_newest_first_in_pages(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    made = [make_job(bakery.site).public_id for _ in range(5)][::-1]
    make_job(florist.site)

    first = read(desk.get("/v1/jobs?limit=2"))
    second = read(desk.get(f"/v1/jobs?limit=2&after={first['last_id']}"))
    third = read(desk.get(f"/v1/jobs?limit=2&after={second['last_id']}"))

    assert [job["id"] for page in (first, second, third) for job in page["data"]] == made
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert (first["object"], first["first_id"], first["last_id"]) == ("list", made[0], made[1])


def test_an_empty_list_has_no_ids(desk: Caller) -> None:
    assert read(desk.get("/v1/jobs")) == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip


def test_a_list_omits_results_and_attempts_and_shows_cost(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)
    UsageEvent.objects.create(
        site=bakery.site, job_id=job.id, dedupe_key="a", attempt=1, call=1, provider="sim", model="m",
        upstream_model="m", outcome=UsageOutcome.OK, billable=True, input_tokens=1, cost_pico_usd=7, price_version="v1",
    )  # fmt: skip

    (shown,) = read(desk.get("/v1/jobs"))["data"]

    assert not {"attempts", "result"} & set(shown)
    assert (shown["usage"]["input_tokens"], shown["cost_usd"]) == (1, "0.000000000007")


def test_jobs_can_be_listed_by_batch_or_without_batch(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    batch, foreign = make_batch(bakery.site), make_batch(florist.site)
    single, member = make_job(bakery.site), make_job(bakery.site, batch=batch, custom_id="a")

    def found(batch_id: str) -> list[str]:
        return [job["id"] for job in read(desk.get(f"/v1/jobs?batch_id={batch_id}"))["data"]]

    assert (found("none"), found(batch.public_id)) == ([single.public_id], [member.public_id])
    for unknown in (foreign.public_id, "batch_1"):
        answer = desk.get(f"/v1/jobs?batch_id={unknown}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


def test_jobs_are_filtered(desk: Caller, bakery: NewSite) -> None:
    old = make_job(bakery.site, kind="messages", model="claude", idempotency_key="k", created_at="2026-01-01T00:00:00Z")
    new = make_job(bakery.site)
    end(new, JobState.FAILED)

    def found(query: str) -> list[str]:
        return [job["id"] for job in read(desk.get(f"/v1/jobs?{query}"))["data"]]

    assert found("state=failed") == found("kind=chat") == found("model=desk") == [new.public_id]
    assert found("idempotency_key=k") == found("model=claude") == [old.public_id]
    assert found("created_before=2026-01-02T00:00:00Z") == [old.public_id]
    assert found("created_after=2026-01-02T00:00:00Z") == [new.public_id]
    assert found("state=failed&kind=messages") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("state=done", "state"),
        ("kind=poem", "kind"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("model=%00", "model"),
        ("idempotency_key=%00", "idempotency_key"),
        ("created_after=yesterday", "created_after"),
        ("created_after=9999-12-31T23:59:59-12:00", "created_after"),
        ("colour=blue", "colour"),
        ("after=%00", "after"),
    ],
)
def test_an_invalid_query_is_explained(desk: Caller, query: str, param: str) -> None:
    response = desk.get(f"/v1/jobs?{query}")

    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_a_cursor_that_is_not_the_sites_is_not_found(desk: Caller, florist: NewSite) -> None:
    for after in ("nonsense", make_job(florist.site).public_id, to_public("job", new_uuid())):
        assert desk.get(f"/v1/jobs?after={after}").status_code == 404


# Cancel and retry


def test_a_queued_job_is_canceled_immediately(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)

    shown = read(desk.post(f"/v1/jobs/{job.public_id}/cancel"))

    assert shown["state"] == "canceled"
    assert shown["finished_at"] is not None


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED])
def test_a_finished_job_cannot_be_canceled(desk: Caller, bakery: NewSite, state: JobState) -> None:
    job = make_job(bakery.site)
    end(job, state)

    response = desk.post(f"/v1/jobs/{job.public_id}/cancel")

    assert (response.status_code, error_of(response)["code"]) == (409, "job_ended")


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELED, JobState.EXPIRED])
def test_a_job_without_success_is_retried_as_a_new_one(desk: Caller, bakery: NewSite, state: JobState) -> None:
    job = make_job(bakery.site, model="gpt-5-mini", payload=json.dumps(CHAT).encode())
    end(job, state)

    shown = read(desk.post(f"/v1/jobs/{job.public_id}/retry"), 202)

    assert shown["retry_of"] == job.public_id
    assert (shown["state"], shown["id"] != job.public_id) == ("queued", True)
    assert read(desk.get("/v1/jobs?state=queued"))["data"][0]["retry_of"] == job.public_id


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SUCCEEDED])
def test_other_jobs_cannot_be_retried(desk: Caller, bakery: NewSite, state: JobState) -> None:
    job = make_job(bakery.site)
    if state != JobState.QUEUED:
        end(job, state)

    response = desk.post(f"/v1/jobs/{job.public_id}/retry")

    assert (response.status_code, error_of(response)["code"]) == (409, "job_not_retryable")


def test_times_are_returned_in_utc(desk: Caller) -> None:
    shown = read(desk.post("/v1/jobs", job_body(available_at="2100-01-01T02:00:00+02:00")), 202)

    assert shown["available_at"] == "2100-01-01T00:00:00Z"
    assert Job.objects.get().available_at == datetime(2100, 1, 1, tzinfo=UTC)


def test_an_erased_job_has_no_result_and_cannot_be_retried(desk: Caller, bakery: NewSite) -> None:
    job = make_job(bakery.site)
    end(job, JobState.FAILED)
    Job.objects.update(payload=None, result=None, erased_at=datetime(2026, 11, 21, 9, tzinfo=UTC))

    shown = read(desk.get(f"/v1/jobs/{job.public_id}"))
    refused = desk.post(f"/v1/jobs/{job.public_id}/retry")

    assert (shown["result"], shown["erased_at"]) == (None, "2026-11-21T09:00:00Z")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "job_erased")
    assert "2026-11-21 09:00 UTC" in error_of(refused)["message"]

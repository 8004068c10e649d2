"""Every restriction of a request holds through every way in: live requests, jobs, batches and retries."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.utils import timezone

from jobs.batches.expand import expand_one
from jobs.models import Batch, Job
from tests.api.live.conftest import Live
from tests.factories import make_batch, make_job, make_provider, make_route
from tests.request_signing import token

HELLO = [{"role": "user", "content": "Say hello."}]
BODY: dict[str, Any] = {"model": "dear", "messages": HELLO, "max_tokens": 50}
ENDED = {"state": "failed", "finished_at": timezone.now()}


def complete(live: Live, body: dict[str, Any], bearer: str) -> str:
    return text_of(live.post("/v1/chat/completions", body, authorization=bearer))


def stream(live: Live, body: dict[str, Any], bearer: str) -> str:
    return text_of(live.post("/v1/chat/completions", {**body, "stream": True}, authorization=bearer))


def start_stream(live: Live, body: dict[str, Any], bearer: str) -> str:
    return text_of(live.post("/v1/streams", body, authorization=bearer))


def wordpress(live: Live, body: dict[str, Any], bearer: str) -> str:
    return text_of(live.post("/v1/chat", body, authorization=bearer))


def job(live: Live, body: dict[str, Any], bearer: str) -> str:
    return text_of(live.post("/v1/jobs", {"kind": "chat", "body": body}, authorization=bearer))


def batch(live: Live, body: dict[str, Any], bearer: str) -> str:
    requests = [{"custom_id": "r1", "body": body}]
    answer = live.post("/v1/batches", {"endpoint": "/v1/chat/completions", "requests": requests}, authorization=bearer)
    return text_of(answer)


def batch_file(live: Live, body: dict[str, Any], bearer: str) -> str:
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = {"file": ("requests.jsonl", json.dumps(line).encode())}
    sent = httpx.post(f"{live.url}/v1/files", data={"purpose": "batch"}, files=file, headers={"authorization": bearer})
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": sent.json()["id"]}
    assert live.post("/v1/batches", wanted, authorization=bearer).status_code == 200
    assert expand_one()
    return " ".join(each["message"] for each in Batch.objects.get().errors)


def retry_job(live: Live, body: dict[str, Any], bearer: str) -> str:
    old = make_job(live.made.site, model=body["model"], payload=json.dumps(body).encode(), **ENDED)
    return text_of(live.post(f"/v1/jobs/{old.public_id}/retry", None, authorization=bearer))


def retry_batch(live: Live, body: dict[str, Any], bearer: str) -> str:
    counts = {"total": 1, "completed": 0, "failed": 1, "canceled": 0, "expired": 0}
    old = make_batch(live.made.site, **counts, **{"state": "completed", "completed_at": timezone.now()})
    member = {"custom_id": "r1", "batch": old, "queue": "batch"}
    make_job(live.made.site, model=body["model"], payload=json.dumps(body).encode(), **member, **ENDED)
    return text_of(live.post(f"/v1/batches/{old.public_id}/retry", None, authorization=bearer))


def text_of(answer: httpx.Response) -> str:
    """Return the error message; empty if the request was accepted."""
    return "" if answer.status_code < 300 else answer.text


WAYS = [complete, stream, start_stream, wordpress, job, batch, batch_file, retry_job, retry_batch]

#: The grant of a token, the request, and the error message.
RESTRICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the token's model": ({"model": "openai-chat"}, {}, "may not be used for the model"),
    "the token's most tokens": ({"max_tokens": 40}, {}, "at most 40 output tokens"),
    "all answers together": ({"max_tokens": 90}, {"n": 2}, "at most 90 output tokens"),
    "premium tiers": ({}, {"service_tier": "priority"}, "does not allow this service_tier"),
    "the site's models": ({}, {"model": "unlisted"}, "may not use the model"),
    "a model without a provider": ({}, {"model": "nowhere"}, "does not exist"),
    "capability": ({}, {"model": "claude", "logprobs": True}, "logprobs"),
    "messages": ({}, {"messages": HELLO * 2001}, "at most 2000 messages"),
    "context": (
        {},
        {"model": "short", "messages": [{"role": "user", "content": "word " * 12_000}]},
        "maximum context length",
    ),
}


@pytest.fixture
def site(live: Live) -> Live:
    """A site that may use all models but one."""
    openai = make_provider("openai-itself", base_url=live.simulator.openai_url, price_list="openai")
    claude = make_provider("claude-itself", dialect="anthropic", base_url=live.simulator.url, price_list="anthropic")
    for model in ("dear", "unlisted"):
        make_route(model, (openai, "gpt-4o-mini"))
    make_route("claude", (claude, "claude-haiku-4-5"))
    # A context of 8,191 tokens.
    make_route("short", (openai, "text-embedding-3-small"))
    live.made.site.allowed_models = ["dear", "claude", "openai-chat", "nowhere", "short"]
    live.made.site.save()
    return live


def mint(live: Live, **narrow: Any) -> str:
    wanted = {"scope": "chat:write streams:write jobs:write", **narrow}
    return f"Bearer {live.post('/v1/tokens', wanted).json()['token']}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_each_restriction_holds_through_each_way_in(
    site: Live, restriction: str, way: Callable[[Live, dict[str, Any], str], str]
) -> None:
    narrow, change, refusal = RESTRICTIONS[restriction]

    assert refusal in way(site, {**BODY, **change}, mint(site, **narrow))
    assert site.simulator.journal() == []
    assert not Job.objects.exclude(state="failed").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_request_within_the_grant_is_accepted_through_each_way_in(
    site: Live, way: Callable[[Live, dict[str, Any], str], str]
) -> None:
    assert way(site, {**BODY, "n": 2, "service_tier": "flex"}, mint(site, model="dear", max_tokens=100)) == ""


@pytest.mark.parametrize("way", [job, batch, batch_file, retry_job, retry_batch])
def test_answers_without_a_bound_get_the_bound_of_the_token(
    site: Live, way: Callable[[Live, dict[str, Any], str], str]
) -> None:
    assert way(site, {"model": "dear", "messages": HELLO, "max_tokens": None, "n": 2}, mint(site, max_tokens=100)) == ""

    body = json.loads(bytes(Job.objects.get(state="queued").payload or b""))
    assert (body["max_completion_tokens"], "max_tokens" in body) == (50, False)


# Idempotency keys


@pytest.mark.parametrize("way", ["token", "jwt"])
def test_a_restricted_credential_does_not_replay_the_answer_of_a_wider_one(site: Live, way: str) -> None:
    narrow = mint(site, max_tokens=10) if way == "token" else f"Bearer {token(site.made, max_tokens=10)}"
    body = {"model": "dear", "messages": HELLO}

    wide = site.post("/v1/chat/completions", body, idempotency_key="k1")
    bounded = site.post("/v1/chat/completions", body, authorization=narrow, idempotency_key="k1")
    again = site.post("/v1/chat/completions", body, authorization=narrow, idempotency_key="k1")

    assert wide.json()["usage"]["completion_tokens"] > 10 >= bounded.json()["usage"]["completion_tokens"]
    assert ["idempotent-replayed" in answer.headers for answer in (wide, bounded, again)] == [False, False, True]


@pytest.mark.parametrize("way", ["token", "jwt"])
def test_restricted_credentials_have_job_keys_of_their_own(site: Live, way: str) -> None:
    narrow = mint(site, max_tokens=10) if way == "token" else f"Bearer {token(site.made, max_tokens=10)}"
    body = {"model": "dear", "messages": HELLO}
    submission = {"kind": "chat", "body": body}

    bounded = site.post("/v1/jobs", submission, authorization=narrow, idempotency_key="order-1").json()
    again = site.post("/v1/jobs", submission, authorization=narrow, idempotency_key="order-1").json()
    wide = site.post("/v1/jobs", submission, idempotency_key="order-1").json()

    assert bounded["id"] == again["id"] != wide["id"]
    listed = site.get("/v1/jobs?idempotency_key=order-1").json()["data"]
    assert [job["id"] for job in listed] == [wide["id"]]
    assert [job["idempotency_key"] for job in (bounded, wide)] == ["order-1", "order-1"]
    assert [json.loads(bytes(job.payload or b"")) for job in Job.objects.order_by("id")] == [
        {**body, "max_completion_tokens": 10},
        body,
    ]


def test_restricted_credentials_have_batch_keys_of_their_own(site: Live) -> None:
    requests = [{"custom_id": "r1", "body": {**BODY, "service_tier": "priority"}}]
    submission = {"endpoint": "/v1/chat/completions", "requests": requests}

    wide = site.post("/v1/batches", submission, idempotency_key="night-1")
    narrow = site.post("/v1/batches", submission, authorization=mint(site), idempotency_key="night-1")

    assert (wide.status_code, narrow.status_code) == (200, 400)

"""Complete answers, in every dialect from every provider."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings
from redis import Redis

from core.ids import new_uuid, to_public
from inference.models import ProviderAccount, Route, RouteTarget
from streams.entries import new_stream_id
from tests.api.live.conftest import Live
from tests.factories import make_route
from tests.polling import wait_for

CHAT: dict[str, Any] = {"model": "openai-chat", "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.mark.parametrize("model", ["openai-chat", "anthropic-chat"])
def test_any_provider_answers_openai_s_dialect(live: Live, model: str) -> None:
    answer = live.post("/v1/chat/completions", {**CHAT, "model": model})

    body = answer.json()
    assert (answer.status_code, body["object"]) == (200, "chat.completion"), body
    assert body["choices"][0]["message"]["content"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert float(answer.headers["x-nightdesk-overhead-ms"]) >= 0


@pytest.mark.parametrize("model", ["openai-chat", "anthropic-chat"])
def test_usage_of_a_complete_answer_is_recorded_to_the_token(live: Live, model: str) -> None:
    body = live.post("/v1/chat/completions", {**CHAT, "model": model}).json()

    (event,) = live.usage(1)
    (call,) = live.simulator.finished()
    assert (event.input_tokens, event.output_tokens) == (
        body["usage"]["prompt_tokens"],
        body["usage"]["completion_tokens"],
    )
    assert event.dedupe_key == call["client_request_id"]
    assert (event.outcome, event.billable, event.estimated) == ("ok", True, False)


def test_any_provider_answers_anthropic_s_dialect(live: Live) -> None:
    body = {"model": "openai-chat", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}

    for model in ("openai-chat", "anthropic-chat"):
        answer = live.post("/v1/messages", {**body, "model": model}, anthropic_version="2023-06-01")

        assert answer.status_code == 200, answer.text
        assert answer.json()["type"] == "message"
        assert answer.headers["request-id"] == answer.headers["x-request-id"]


def test_the_envelope_names_the_provider(live: Live) -> None:
    answer = live.post("/api/v1/chat", {**CHAT, "provider": "sim-openai", "request_id": "r-1"})

    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"id", "provider", "model", "data"}
    assert answer.json()["provider"] == "sim-openai"


def test_embeddings_come_in_both_encodings(live: Live) -> None:
    numbers = live.post("/v1/embeddings", {"model": "embed", "input": ["a", "b"]}).json()
    packed = live.post("/v1/embeddings", {"model": "embed", "input": ["a", "b"], "encoding_format": "base64"}).json()

    assert [len(row["embedding"]) for row in numbers["data"]] == [1536, 1536]
    assert isinstance(packed["data"][0]["embedding"], str)


def test_requests_with_one_idempotency_key_make_one_call(live: Live) -> None:
    answers = [live.post("/v1/chat/completions", CHAT, idempotency_key="k-1") for _ in range(3)]

    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len(live.simulator.finished()) == 1
    other = live.post("/v1/chat/completions", {**CHAT, "temperature": 0}, idempotency_key="k-1")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_a_canceled_answer_is_an_error_for_the_waiting_client(live: Live) -> None:
    make_route("slow-chat", (ProviderAccount.objects.get(name="sim-openai"), "gpt-4o-mini@ttft_ms=10000"))
    body = {**CHAT, "model": "slow-chat"}

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(live.post, "/v1/chat/completions", body, idempotency_key="k-slow")
        wait_for(live.simulator.journal)
        (stream_id,) = streams_of_keys()
        canceled = httpx.delete(f"{live.url}/v1/streams/{stream_id}", headers=live.headers)
        answer = waiting.result()

    assert canceled.status_code == 202, canceled.text
    assert answer.status_code == 499, answer.text
    assert answer.json()["error"]["code"] == "stream_canceled"


def streams_of_keys() -> list[str]:
    """The ids of the streams that the idempotency keys are bound to."""
    with Redis.from_url(django_settings.REDIS_URL) as server:
        return [bytes(server.get(key) or b"")[32:].decode() for key in server.scan_iter("nd:{*}:key:*")]


def test_a_request_whose_key_has_an_expired_answer_runs_again(live: Live) -> None:
    first = live.post("/v1/chat/completions", CHAT, idempotency_key="k-2", cache_control="no-store")
    with Redis.from_url(django_settings.REDIS_URL) as server:
        (key,) = server.scan_iter("nd:{*}:key:*")
        # As if the request were an hour old and its log had expired.
        old = to_public("stm", UUID(int=new_uuid().int - (3_600_000 << 80))).encode()
        server.set(key, bytes(server.get(key) or b"")[:32] + old)

    again = live.post("/v1/chat/completions", CHAT, idempotency_key="k-2", cache_control="no-store")

    assert (first.status_code, again.status_code) == (200, 200)
    assert "idempotent-replayed" not in again.headers
    assert len(live.simulator.finished(2)) == 2


def test_a_request_whose_key_has_a_stream_that_never_started_runs_again(live: Live) -> None:
    live.post("/v1/chat/completions", CHAT, idempotency_key="k-3", cache_control="no-store")
    with Redis.from_url(django_settings.REDIS_URL) as server:
        (key,) = server.scan_iter("nd:{*}:key:*")
        server.set(key, bytes(server.get(key) or b"")[:32] + new_stream_id().encode())

    again = live.post("/v1/chat/completions", CHAT, idempotency_key="k-3", cache_control="no-store")

    assert again.status_code == 200, again.text
    assert "idempotent-replayed" not in again.headers


def test_a_repeated_body_is_a_cache_hit(live: Live) -> None:
    first, second = (live.post("/v1/chat/completions", CHAT) for _ in range(2))
    third = live.post("/v1/chat/completions", CHAT, cache_control="no-store")

    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert second.content == first.content
    assert "x-cache" not in third.headers
    assert len(live.simulator.finished(2)) == 2
    hit = next(event for event in live.usage(3) if event.provider == "cache")
    assert (hit.outcome, hit.billable, hit.input_tokens, hit.cost_pico_usd) == ("ok", False, 0, 0)


def test_an_idempotency_key_is_bound_to_its_body_also_after_a_cache_hit(live: Live) -> None:
    live.post("/v1/chat/completions", CHAT)
    hit = live.post("/v1/chat/completions", CHAT, idempotency_key="k-4")
    other = live.post("/v1/chat/completions", {**CHAT, "temperature": 0}, idempotency_key="k-4")
    again = live.post("/v1/chat/completions", CHAT, idempotency_key="k-4")
    uncached = [live.post("/v1/chat/completions", CHAT, idempotency_key="k-4", cache_control="no-store") for _ in "12"]

    assert [hit.headers["x-cache"], again.headers["x-cache"]] == ["HIT", "HIT"]
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    # The one call that belongs to the key.
    assert ["idempotent-replayed" in answer.headers for answer in uncached] == [False, True]
    assert len(live.simulator.finished(2)) == 2


def test_cached_vectors_of_two_models_are_never_mixed_in_one_answer(live: Live) -> None:
    def lengths(*inputs: str) -> list[int]:
        answer = live.post("/v1/embeddings", {"model": "embed", "input": list(inputs)})
        return [len(row["embedding"]) for row in answer.json()["data"]]

    before = lengths("a", "b")
    RouteTarget.objects.filter(route__model="embed").update(upstream_model="text-embedding-3-large")
    wait_for(lambda: lengths(f"{time.monotonic()}") == [3072])

    assert before == [1536, 1536]
    assert lengths("c", "a") == [3072, 3072]
    assert lengths("b", "c") == [3072, 3072]


def test_a_request_for_one_provider_never_gets_another_s_cached_answer(live: Live) -> None:
    provider = ProviderAccount.objects.get(name="sim-anthropic")
    RouteTarget.objects.create(
        route=Route.objects.get(model="openai-chat"), provider=provider, upstream_model="claude-haiku-4-5", position=2
    )

    answers = [live.post("/api/v1/chat", {**CHAT, "provider": name}) for name in ("sim-openai", "sim-anthropic")]

    assert [answer.json()["provider"] for answer in answers] == ["sim-openai", "sim-anthropic"]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "MISS"]


def test_invalid_credentials_are_rejected_with_an_error_of_the_dialect(live: Live) -> None:
    openai = live.post("/v1/chat/completions", CHAT, authorization="Bearer nd_wrong")
    anthropic = live.post("/v1/messages", {}, authorization="Bearer nd_wrong")

    assert (openai.status_code, openai.json()["error"]["code"]) == (401, "invalid_credentials")
    assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (401, "authentication_error")


def test_models_are_listed_in_the_dialect_of_the_client(live: Live) -> None:
    openai = live.get("/v1/models").json()
    anthropic = live.get("/v1/models", anthropic_version="2023-06-01").json()

    assert {model["id"] for model in openai["data"]} == {"openai-chat", "anthropic-chat", "embed", "cut-chat"}
    assert {model["type"] for model in anthropic["data"]} == {"model"}
    assert live.get("/v1/models/openai-chat").json()["object"] == "model"
    assert live.get("/v1/models/none").status_code == 404


def test_counting_tokens_calls_no_provider(live: Live) -> None:
    body = {"model": "anthropic-chat", "messages": [{"role": "user", "content": "Hello, how are you?"}]}

    counted = live.post("/v1/messages/count_tokens", body)

    assert counted.status_code == 200
    assert counted.json()["input_tokens"] > 0
    assert live.simulator.journal() == []


def test_programs_on_the_same_machine_may_read_the_metrics(live: Live) -> None:
    live.post("/v1/chat/completions", CHAT)

    response = httpx.get(f"{live.url}/metrics")

    assert response.status_code == 200
    assert 'nightdesk_live_requests_total{route="chat_completions",status="200"}' in response.text
    assert "nightdesk_usage_records_pending " in response.text
    assert httpx.get(f"{live.url}/metrics", headers={"x-forwarded-for": "203.0.113.5"}).status_code == 404


def test_with_metrics_token_set_only_its_bearer_reads_the_metrics(live: Live, settings: Settings) -> None:
    settings.METRICS_TOKEN = "secret-of-the-operator"

    shown = httpx.get(f"{live.url}/metrics", headers={"authorization": "Bearer secret-of-the-operator"})

    assert shown.status_code == 200
    assert httpx.get(f"{live.url}/metrics").status_code == 404


def test_only_inputs_without_a_cached_vector_go_to_the_provider(live: Live) -> None:
    def ask(*inputs: str) -> httpx.Response:
        return live.post("/v1/embeddings", {"model": "embed", "input": list(inputs)})

    first, more, again = ask("a", "b"), ask("b", "c", "a"), ask("c", "a")

    assert [each.headers["x-cache"] for each in (first, more, again)] == ["MISS", "MISS", "HIT"]
    vectors = [row["embedding"] for row in more.json()["data"]]
    assert [vectors[2], vectors[0]] == [row["embedding"] for row in first.json()["data"]]
    assert [row["embedding"] for row in again.json()["data"]] == [vectors[1], vectors[2]]
    assert again.json()["usage"]["total_tokens"] == 0
    assert len(live.simulator.finished(2)) == 2

"""Streams over HTTP: read from the first event to the last, resumed from any event, and canceled."""

import uuid
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings
from redis import Redis

from inference.models import ProviderAccount
from streams.entries import StreamEnd, StreamInfo, StreamRecord, encode, new_stream_id, record_key
from tests.api.live.conftest import Live
from tests.factories import make_provider, make_route

CHAT: dict[str, Any] = {
    "model": "openai-chat",
    "messages": [{"role": "user", "content": "Say hello."}],
    "stream": True,
}


def lines_of(text: str, field: str) -> list[str]:
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{field}:")]


def test_a_stream_has_numbered_events_and_an_end(live: Live) -> None:
    answer = live.post("/v1/chat/completions", CHAT)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    ids, data = lines_of(answer.text, "id"), lines_of(answer.text, "data")
    assert [int(each.rpartition("-")[2]) for each in ids] == list(range(1, len(ids) + 1))
    assert data[-1] == "[DONE]"
    assert len(live.usage(1)) == 1


def test_a_stream_can_be_read_again_from_any_event(live: Live) -> None:
    whole = live.post("/v1/chat/completions", CHAT).text
    ids, data = lines_of(whole, "id"), lines_of(whole, "data")
    stream_id = ids[0].rpartition("-")[0]

    for place in (0, len(ids) // 2, len(ids) - 1):
        again = live.get(f"/v1/streams/{stream_id}/events", last_event_id=ids[place])
        assert lines_of(again.text, "data") == data[place + 1 :]
    assert lines_of(live.get(f"/v1/streams/{stream_id}/events").text, "data") == data
    assert len(live.simulator.finished()) == 1


def test_a_detached_stream_is_read_with_its_ticket(live: Live, settings: Settings) -> None:
    settings.BASE_URL = live.url
    started = live.post("/v1/streams", CHAT)
    assert started.status_code == 202, started.text
    given = started.json()

    events = httpx.get(given["events_url"], headers={"authorization": f"Bearer {given['ticket']}"}, timeout=20)
    elsewhere = httpx.get(f"{live.url}/v1/models", headers={"authorization": f"Bearer {given['ticket']}"})

    assert lines_of(events.text, "data")[-1] == "[DONE]", events.text
    assert elsewhere.status_code == 401


def test_anthropic_s_stream_ends_with_its_own_event(live: Live) -> None:
    body = {"model": "openai-chat", "max_tokens": 50, "stream": True, "messages": CHAT["messages"]}

    for model in ("openai-chat", "anthropic-chat"):
        text = live.post("/v1/messages", {**body, "model": model}, anthropic_version="2023-06-01").text

        assert lines_of(text, "event")[0] == "message_start"
        assert lines_of(text, "event")[-1] == "message_stop"


def test_a_failure_before_the_first_token_is_a_response_with_its_status(live: Live) -> None:
    live.simulator.script("gpt-4o-mini", ["400"])

    answer = live.post("/v1/chat/completions", CHAT)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_an_idempotency_key_is_bound_to_one_body_in_one_dialect(live: Live) -> None:
    one, other = (
        live.post(f"/v1/streams?dialect={dialect}", CHAT, idempotency_key="k-1") for dialect in ("openai", "wordpress")
    )

    assert (one.status_code, other.status_code) == (202, 422), other.text


def test_a_narrow_token_cannot_read_another_token_s_stream_by_its_idempotency_key(live: Live) -> None:
    wanted = {"scope": "chat:write streams:write streams:read"}
    tokens = [live.post("/v1/tokens", wanted).json()["token"] for _ in range(2)]

    answers = [
        live.post("/v1/chat/completions", CHAT, authorization=f"Bearer {token}", idempotency_key="k-1")
        for token in (*tokens, tokens[0], live.key)
    ]

    streams = [lines_of(answer.text, "id")[0] for answer in answers]
    assert streams[0] == streams[2]
    assert len(set(streams)) == 3
    assert len(live.simulator.finished(3)) == 3


def test_a_stream_without_events_is_an_error_and_not_an_empty_answer(live: Live) -> None:
    about = StreamInfo(
        id=new_stream_id(),
        site=live.made.site.public_id,
        status=0,
        content_type="",
        wire_format="openai",
        origin=None,
        kind="stream",
        created_at=0,
    )
    with Redis.from_url(django_settings.REDIS_URL) as server:
        server.set(record_key(about.id), encode(StreamRecord(about, "process_gone", 0, StreamEnd("canceled"))), ex=60)

    answer = live.get(f"/v1/streams/{about.id}/events")

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "stream_lost")


def test_a_cut_after_the_first_token_is_never_a_clean_end(live: Live) -> None:
    data = lines_of(live.post("/v1/chat/completions", {**CHAT, "model": "cut-chat"}).text, "data")

    assert "[DONE]" not in data
    assert '"error"' in data[-1]
    (event,) = live.usage(1)
    assert event.estimated


def make_broken_off(live: Live) -> None:
    """A route whose first provider cuts its answers. It has a key of its own, so its circuit breaker is its own too."""
    broken = make_provider("sim-broken", base_url=live.simulator.openai_url, api_key=uuid.uuid4().hex.encode())
    on = ProviderAccount.objects.get(name="sim-anthropic")
    make_route("broken-off", (broken, "gpt-4o-mini@cut_after_n=5"), (on, "claude-haiku-4-5"))


@pytest.mark.parametrize(
    ("path", "end"),
    [("/v1/chat/completions", "[DONE]"), ("/v1/messages", "message_stop"), ("/v1/chat", "finish_reason")],
)
def test_the_next_provider_continues_a_cut_answer_on_request(live: Live, path: str, end: str) -> None:
    make_broken_off(live)

    body = {**CHAT, "model": "broken-off", "max_tokens": 200}
    data = lines_of(live.post(path, body, x_nightdesk_continue="true").text, "data")

    assert end in data[-1]
    (mark,) = [index for index, each in enumerate(data) if '"nightdesk":{"continued_by":"sim-anthropic"}' in each]
    said = [index for index, each in enumerate(data) if '"delta":{"content":"' in each or '"text_delta"' in each]
    assert len([index for index in said if index < mark]) == 5
    assert said[-1] > mark
    assert {event.provider for event in live.usage(2)} == {"sim-broken", "sim-anthropic"}


def test_an_answer_that_only_one_dialect_can_give_is_not_continued(live: Live) -> None:
    make_broken_off(live)

    body = {**CHAT, "model": "broken-off", "n": 2}
    data = lines_of(live.post("/v1/chat/completions", body, x_nightdesk_continue="true").text, "data")

    assert any('"index":1' in each for each in data)
    assert '"upstream_stream_interrupted"' in data[-1]

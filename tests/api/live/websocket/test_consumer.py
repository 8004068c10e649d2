"""Streams over a WebSocket: start, follow, resume, leave and cancel, several over one connection."""

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings
from websockets.exceptions import ConnectionClosed

from tenants.credentials import create_site
from tests.api.live.conftest import OPENAI_MODEL, Live
from tests.api.live.test_stream_endpoints import lines_of
from tests.api.live.websocket.client import data_of, socket, text_of
from tests.factories import make_provider, make_route
from tests.polling import wait_for

MESSAGES = [{"role": "user", "content": "Say hello."}]
BODY: dict[str, Any] = {"model": "openai-chat", "messages": MESSAGES}


@pytest.fixture
def slow(live: Live) -> dict[str, Any]:
    """A body whose answer is slow."""
    provider = make_provider("sim-slow", base_url=live.simulator.openai_url)
    make_route("slow-chat", (provider, f"{OPENAI_MODEL}@tokens=400,inter_token_ms=50"))
    return {**BODY, "model": "slow-chat"}


def test_a_stream_is_started_and_read_to_its_end(live: Live) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body=BODY)
        ready, started, *words = client.receive_until("end")

    events = [word for word in words if word["type"] == "event"]
    assert ready == {"type": "ready", "site": live.made.site.public_id}
    assert started["stream"].startswith("stm_")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"] == "[DONE]"
    assert words[-1] == {"type": "end", "ref": "a", "kind": "done", "seq": len(events)}
    assert len(live.usage(1)) == 1


def test_several_streams_share_a_connection_in_both_dialects(live: Live) -> None:
    with socket(live) as client:
        for number in range(4):
            client.send("start", ref=f"o{number}", body=BODY)
        client.send("start", ref="a", dialect="anthropic", body={**BODY, "model": "anthropic-chat", "max_tokens": 50})
        words = [word for _ in range(5) for word in client.receive_until("end")]

    texts = {text_of(words, f"o{number}") for number in range(4)}
    names = [word["event"] for word in words if word["type"] == "event" and word["ref"] == "a"]
    assert len(texts) == 1
    assert texts != {""}
    assert (names[0], names[-1]) == ("message_start", "message_stop")


def test_a_stream_is_resumed_over_another_connection_and_read_the_same_by_http(live: Live) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body=BODY)
        whole = client.receive_until("end")
    stream_id = whole[1]["stream"]

    with socket(live) as client:
        client.send("follow", ref="b", stream=stream_id, after=3)
        rest = client.receive_until("end")

    assert rest[1] == {"type": "following", "ref": "b", "stream": stream_id}
    assert data_of(rest, "b") == data_of(whole, "a")[3:]
    by_http = lines_of(live.get(f"/v1/streams/{stream_id}/events").text, "data")
    assert len(by_http) == len(data_of(whole, "a"))
    assert len(live.simulator.finished()) == 1


def test_no_event_is_lost_with_a_connection(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body={**slow, "model": "slow-chat"})
        words = client.receive_until("event", seq=5)
        stream_id = words[1]["stream"]
        client.connection.socket.close()

    with socket(live) as client:
        client.send("follow", ref="a", stream=stream_id, after=5)
        (event, *_) = [word for word in client.receive_until("event") if word["type"] == "event"]
        client.send("cancel", ref="a")
        client.receive_until("end", kind="canceled")

    assert event["seq"] == 6


def test_a_cancel_closes_the_call_and_its_usage_is_recorded(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body=slow)
        client.receive_until("event")
        client.send("cancel", ref="a")
        words = client.receive_until("end")

    assert words[-1]["kind"] == "canceled"
    assert "error" in str(data_of(words, "a")[-1])
    assert [word["was_running"] for word in words if word["type"] == "canceled"] == [True]
    (event,) = live.usage(1)
    assert event.outcome == "canceled"


def test_a_stream_runs_on_after_leave_and_its_ref_is_free_again(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body=slow)
        stream_id = client.receive_until("event")[1]["stream"]
        client.send("leave", ref="a")
        left = client.receive_until("end")[-1]
        client.send("follow", ref="a", stream=stream_id, after=left["seq"])
        again = client.receive_until("event")[-1]
        client.send("cancel", stream=stream_id)
        client.receive_until("end", kind="canceled")

    assert left["kind"] == "left"
    assert again["seq"] == left["seq"] + 1


def test_a_start_with_the_same_idempotency_key_joins_the_stream(live: Live) -> None:
    with socket(live) as client:
        for ref in ("a", "b"):
            client.send("start", ref=ref, body=BODY, idempotency_key="once")
        words = client.receive_until("end") + client.receive_until("end")

    started = [word for word in words if word["type"] == "started"]
    assert started[0]["stream"] == started[1]["stream"]
    assert sorted(word["replayed"] for word in started) == [False, True]
    assert text_of(words, "a") == text_of(words, "b") != ""
    assert len(live.simulator.finished()) == 1


def test_a_failure_before_the_first_token_ends_with_its_status(live: Live) -> None:
    live.simulator.script(OPENAI_MODEL, ["400"])

    with socket(live) as client:
        client.send("start", ref="a", body=BODY)
        end = client.receive_until("end")[-1]

    assert (end["kind"], end["status"]) == ("error", 400)
    assert end["error"]["message"]


def test_a_cut_after_the_first_token_is_never_a_clean_end(live: Live) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body={**BODY, "model": "cut-chat"})
        words = client.receive_until("end")

    assert words[-1]["kind"] == "error"
    assert "error" in data_of(words, "a")[-1]


MISTAKES: list[tuple[str, str, str | None]] = [
    ("no json", "malformed_body", None),
    ('{"type": "dance"}', "invalid_value", "type"),
    ('{"type": "start", "ref": "x"}', "invalid_value", None),
    ('{"type": "start", "ref": "x", "body": {}, "more": 1}', "invalid_value", None),
    ('{"type": "start", "ref": "x", "body": {"model": "openai-chat"}}', "missing_required_parameter", "messages"),
    (
        '{"type": "start", "ref": "x", "body": {"model": "no", "messages": [{"role": "user", "content": "a"}]}}',
        "model_not_found",
        "body.model",
    ),
    ('{"type": "start", "ref": "x", "body": {}, "dialect": "latin"}', "invalid_value", "dialect"),
    ('{"type": "follow", "ref": "x", "stream": "stm_nothing"}', "not_found", None),
    ('{"type": "follow", "ref": "x"}', "invalid_value", "stream"),
    ('{"type": "leave", "ref": "x"}', "ref_unknown", "ref"),
    ('{"type": "cancel"}', "invalid_value", "ref"),
    ('{"type": "ping", "id": ' + "[" * 20_000, "malformed_body", None),
]


def test_an_invalid_message_is_reported_and_ends_nothing(live: Live) -> None:
    with socket(live) as client:
        client.receive()
        errors = []
        for text, _, _ in MISTAKES:
            client.connection.send(text)
            errors.append(client.receive())
        client.connection.send(b"\x00")
        binary = client.receive()
        client.send("start", ref="x", body=BODY)
        words = client.receive_until("end")

    assert [(word["error"]["code"], word["error"]["param"]) for word in errors] == [each[1:] for each in MISTAKES]
    assert [word.get("ref") for word in errors] == ["x" if '"x"' in text else None for text, _, _ in MISTAKES]
    assert binary["error"]["code"] == "malformed_body"
    assert words[-1]["kind"] == "done"


def test_the_number_of_refs_is_bounded_and_each_is_used_once(
    live: Live, slow: dict[str, Any], settings: Settings
) -> None:
    settings.WEBSOCKET_MAX_STREAMS = 2

    with socket(live) as client:
        client.send("start", ref="a", body=slow)
        client.send("start", ref="a", body=slow)
        twice = client.receive_until("error")[-1]
        client.send("start", ref="b", body=slow)
        client.send("start", ref="c", body=slow)
        third = client.receive_until("error")[-1]

    assert twice["error"]["code"] == "ref_in_use"
    assert (third["ref"], third["error"]["code"]) == ("c", "concurrency_limit_exceeded")


def test_a_message_that_is_too_long_is_rejected(live: Live, settings: Settings) -> None:
    settings.MAX_LIVE_BODY_BYTES = 2000

    with socket(live) as client:
        client.send("start", ref="a", body={**BODY, "user": "x" * 2000})
        error = client.receive_until("error")[-1]
        client.send("ping", id="still here")
        pong = client.receive()

    assert error["error"]["code"] == "body_too_large"
    assert pong == {"type": "pong", "id": "still here"}


def test_a_stream_of_another_site_is_not_found(live: Live) -> None:
    other = replace(live, made=create_site("Library", f"library-{uuid.uuid4().hex[:8]}"))
    with socket(live) as client:
        client.send("start", ref="a", body=BODY)
        stream_id = client.receive_until("end")[1]["stream"]

    with socket(other) as client:
        client.send("follow", ref="a", stream=stream_id)
        client.send("cancel", stream=stream_id)
        codes = [client.receive_until("error")[-1]["error"]["code"] for _ in range(2)]

    assert codes == ["not_found", "not_found"]


def test_a_client_that_does_not_read_is_closed_and_can_resume(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES, settings.WEBSOCKET_PONG_SECONDS = 16_384, 1
    settings.STREAM_KEEPALIVE_SECONDS = 0.5
    provider = make_provider("sim-fast", base_url=live.simulator.openai_url)
    make_route("fast-chat", (provider, f"{OPENAI_MODEL}@tokens=2000"))

    with socket(live) as client:
        client.answers_pings = False
        client.send("start", ref="a", body={**BODY, "model": "fast-chat"})
        words = [client.receive() for _ in range(10)]
        code = client.closed_with()
    stream_id = words[1]["stream"]

    assert code == 4408
    # Of half a megabyte, no more than the bound was sent without a pong.
    assert client.received_bytes < 18_000
    settings.WEBSOCKET_PONG_SECONDS = 30
    with socket(live) as client:
        client.send("follow", ref="a", stream=stream_id, after=5)
        rest = client.receive_until("end")
    assert [word["seq"] for word in rest if word["type"] == "event"][:2] == [6, 7]
    assert rest[-1]["kind"] == "done"


def test_a_client_that_sends_and_does_not_read_is_closed(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES = 16_384

    with socket(live) as client:
        client.answers_pings = False
        with suppress(ConnectionClosed):
            for _ in range(200):
                client.send("ping", id="x" * 1000)
        code = client.closed_with()

    assert code == 4408
    assert client.received_bytes < 2 * 16_384 + 2000


def test_a_client_that_reads_gets_a_long_stream_to_its_end(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES, settings.WEBSOCKET_PONG_SECONDS = 16_384, 1
    settings.STREAM_KEEPALIVE_SECONDS = 0.5
    provider = make_provider("sim-fast", base_url=live.simulator.openai_url)
    make_route("fast-chat", (provider, f"{OPENAI_MODEL}@tokens=2000"))

    with socket(live) as client:
        client.send("start", ref="a", body={**BODY, "model": "fast-chat"})
        words = client.receive_until("end")

    assert words[-1]["kind"] == "done"
    assert words[-1]["seq"] > 1000


def test_usage_is_recorded_after_the_client_disconnects(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.send("start", ref="a", body=slow)
        stream_id = client.receive_until("event")[1]["stream"]

    with socket(live) as client:
        client.send("cancel", stream=stream_id)
        assert client.receive_until("canceled")[-1]["was_running"]
    assert wait_for(lambda: live.usage(1))[0].outcome == "canceled"

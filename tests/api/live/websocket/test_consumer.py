"""Streams over a WebSocket: started, followed, resumed, left and canceled, several over one connection."""

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings
from websockets.exceptions import ConnectionClosed

from tenants.credentials import create_site
from tests.api.live.conftest import OPENAI_MODEL, Live
from tests.api.live.sockets import data_of, socket, text_of
from tests.api.live.test_stream_endpoints import lines_of
from tests.factories import make_provider, make_route
from tests.polling import wait_for

MESSAGES = [{"role": "user", "content": "Say hello."}]
BODY: dict[str, Any] = {"model": "openai-chat", "messages": MESSAGES}


@pytest.fixture
def slow(live: Live) -> dict[str, Any]:
    """A body whose answer takes its time."""
    provider = make_provider("sim-slow", base_url=live.simulator.openai_url)
    make_route("slow-chat", (provider, f"{OPENAI_MODEL}@tokens=400,inter_token_ms=50"))
    return {**BODY, "model": "slow-chat"}


def test_a_stream_is_started_and_read_to_its_end(live: Live) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body=BODY)
        ready, started, *words = client.hear_until("end")

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
            client.say("start", ref=f"o{number}", body=BODY)
        client.say("start", ref="a", dialect="anthropic", body={**BODY, "model": "anthropic-chat", "max_tokens": 50})
        words = [word for _ in range(5) for word in client.hear_until("end")]

    texts = {text_of(words, f"o{number}") for number in range(4)}
    names = [word["event"] for word in words if word["type"] == "event" and word["ref"] == "a"]
    assert len(texts) == 1
    assert texts != {""}
    assert (names[0], names[-1]) == ("message_start", "message_stop")


def test_a_stream_is_resumed_over_another_connection_and_read_the_same_by_http(live: Live) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body=BODY)
        whole = client.hear_until("end")
    stream_id = whole[1]["stream"]

    with socket(live) as client:
        client.say("follow", ref="b", stream=stream_id, after=3)
        rest = client.hear_until("end")

    assert rest[1] == {"type": "following", "ref": "b", "stream": stream_id}
    assert data_of(rest, "b") == data_of(whole, "a")[3:]
    by_http = lines_of(live.get(f"/v1/streams/{stream_id}/events").text, "data")
    assert len(by_http) == len(data_of(whole, "a"))
    assert len(live.simulator.finished()) == 1


def test_a_lost_connection_loses_nothing(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body={**slow, "model": "slow-chat"})
        words = client.hear_until("event", seq=5)
        stream_id = words[1]["stream"]
        client.connection.socket.close()

    with socket(live) as client:
        client.say("follow", ref="a", stream=stream_id, after=5)
        (event, *_) = [word for word in client.hear_until("event") if word["type"] == "event"]
        client.say("cancel", ref="a")
        client.hear_until("end", kind="canceled")

    assert event["seq"] == 6


def test_a_cancel_closes_the_call_and_the_account_is_kept(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body=slow)
        client.hear_until("event")
        client.say("cancel", ref="a")
        words = client.hear_until("end")

    assert words[-1]["kind"] == "canceled"
    assert "error" in str(data_of(words, "a")[-1])
    assert [word["was_running"] for word in words if word["type"] == "canceled"] == [True]
    (event,) = live.usage(1)
    assert event.outcome == "canceled"


def test_what_is_left_goes_on_and_the_name_is_free_again(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body=slow)
        stream_id = client.hear_until("event")[1]["stream"]
        client.say("leave", ref="a")
        left = client.hear_until("end")[-1]
        client.say("follow", ref="a", stream=stream_id, after=left["seq"])
        again = client.hear_until("event")[-1]
        client.say("cancel", stream=stream_id)
        client.hear_until("end", kind="canceled")

    assert left["kind"] == "left"
    assert again["seq"] == left["seq"] + 1


def test_a_start_with_the_same_key_joins_the_stream(live: Live) -> None:
    with socket(live) as client:
        for ref in ("a", "b"):
            client.say("start", ref=ref, body=BODY, idempotency_key="once")
        words = client.hear_until("end") + client.hear_until("end")

    started = [word for word in words if word["type"] == "started"]
    assert started[0]["stream"] == started[1]["stream"]
    assert sorted(word["replayed"] for word in started) == [False, True]
    assert text_of(words, "a") == text_of(words, "b") != ""
    assert len(live.simulator.finished()) == 1


def test_a_failure_before_the_first_token_ends_with_its_status(live: Live) -> None:
    live.simulator.script(OPENAI_MODEL, ["400"])

    with socket(live) as client:
        client.say("start", ref="a", body=BODY)
        end = client.hear_until("end")[-1]

    assert (end["kind"], end["status"]) == ("error", 400)
    assert end["error"]["message"]


def test_a_cut_after_the_first_token_is_never_a_clean_end(live: Live) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body={**BODY, "model": "cut-chat"})
        words = client.hear_until("end")

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


def test_a_mistake_is_told_and_ends_nothing(live: Live) -> None:
    with socket(live) as client:
        client.hear()
        told = []
        for text, _, _ in MISTAKES:
            client.connection.send(text)
            told.append(client.hear())
        client.connection.send(b"\x00")
        binary = client.hear()
        client.say("start", ref="x", body=BODY)
        words = client.hear_until("end")

    assert [(word["error"]["code"], word["error"]["param"]) for word in told] == [each[1:] for each in MISTAKES]
    assert [word.get("ref") for word in told] == ["x" if '"x"' in text else None for text, _, _ in MISTAKES]
    assert binary["error"]["code"] == "malformed_body"
    assert words[-1]["kind"] == "done"


def test_names_and_streams_are_bounded(live: Live, slow: dict[str, Any], settings: Settings) -> None:
    settings.WEBSOCKET_MAX_STREAMS = 2

    with socket(live) as client:
        client.say("start", ref="a", body=slow)
        client.say("start", ref="a", body=slow)
        twice = client.hear_until("error")[-1]
        client.say("start", ref="b", body=slow)
        client.say("start", ref="c", body=slow)
        third = client.hear_until("error")[-1]

    assert twice["error"]["code"] == "ref_in_use"
    assert (third["ref"], third["error"]["code"]) == ("c", "concurrency_limit_exceeded")


def test_a_message_that_is_too_long_is_refused(live: Live, settings: Settings) -> None:
    settings.MAX_LIVE_BODY_BYTES = 2000

    with socket(live) as client:
        client.say("start", ref="a", body={**BODY, "user": "x" * 2000})
        error = client.hear_until("error")[-1]
        client.say("ping", id="still here")
        pong = client.hear()

    assert error["error"]["code"] == "body_too_large"
    assert pong == {"type": "pong", "id": "still here"}


def test_a_stream_of_another_site_is_none(live: Live) -> None:
    other = replace(live, made=create_site("Library", f"library-{uuid.uuid4().hex[:8]}"))
    with socket(live) as client:
        client.say("start", ref="a", body=BODY)
        stream_id = client.hear_until("end")[1]["stream"]

    with socket(other) as client:
        client.say("follow", ref="a", stream=stream_id)
        client.say("cancel", stream=stream_id)
        codes = [client.hear_until("error")[-1]["error"]["code"] for _ in range(2)]

    assert codes == ["not_found", "not_found"]


def test_who_does_not_read_is_cut_off_and_can_resume(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES, settings.WEBSOCKET_PONG_SECONDS = 16_384, 1
    settings.STREAM_KEEPALIVE_SECONDS = 0.5
    provider = make_provider("sim-fast", base_url=live.simulator.openai_url)
    make_route("fast-chat", (provider, f"{OPENAI_MODEL}@tokens=2000"))

    with socket(live) as client:
        client.answers_pings = False
        client.say("start", ref="a", body={**BODY, "model": "fast-chat"})
        words = [client.hear() for _ in range(10)]
        code = client.closed_with()
    stream_id = words[1]["stream"]

    assert code == 4408
    # Of half a megabyte, no more was on its way than may be unread.
    assert client.heard_bytes < 18_000
    settings.WEBSOCKET_PONG_SECONDS = 30
    with socket(live) as client:
        client.say("follow", ref="a", stream=stream_id, after=5)
        rest = client.hear_until("end")
    assert [word["seq"] for word in rest if word["type"] == "event"][:2] == [6, 7]
    assert rest[-1]["kind"] == "done"


def test_who_asks_and_does_not_read_is_cut_off_too(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES = 16_384

    with socket(live) as client:
        client.answers_pings = False
        with suppress(ConnectionClosed):
            for _ in range(200):
                client.say("ping", id="x" * 1000)
        code = client.closed_with()

    assert code == 4408
    assert client.heard_bytes < 2 * 16_384 + 2000


def test_what_is_read_goes_on_however_long(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_MAX_UNREAD_BYTES, settings.WEBSOCKET_PONG_SECONDS = 16_384, 1
    settings.STREAM_KEEPALIVE_SECONDS = 0.5
    provider = make_provider("sim-fast", base_url=live.simulator.openai_url)
    make_route("fast-chat", (provider, f"{OPENAI_MODEL}@tokens=2000"))

    with socket(live) as client:
        client.say("start", ref="a", body={**BODY, "model": "fast-chat"})
        words = client.hear_until("end")

    assert words[-1]["kind"] == "done"
    assert words[-1]["seq"] > 1000


def test_the_account_of_who_goes_away_is_written(live: Live, slow: dict[str, Any]) -> None:
    with socket(live) as client:
        client.say("start", ref="a", body=slow)
        stream_id = client.hear_until("event")[1]["stream"]

    with socket(live) as client:
        client.say("cancel", stream=stream_id)
        assert client.hear_until("canceled")[-1]["was_running"]
    assert wait_for(lambda: live.usage(1))[0].outcome == "canceled"

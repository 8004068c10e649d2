"""A narrow token follows and cancels only its own streams, and those of its user's other tokens."""

import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tenants.credentials import create_site
from tests.api.live.conftest import Live
from tests.api.live.websocket.client import WebSocketClient, socket
from tests.polling import wait_for

CHAT: dict[str, Any] = {
    "model": "openai-chat",
    "messages": [{"role": "user", "content": "Say hello."}],
    "stream": True,
}
SCOPE = "chat:write streams:read streams:write"


def mint(live: Live, user: str | None, **wanted: Any) -> str:
    answer = live.post("/v1/tokens", {"scope": SCOPE, **({"user": user} if user else {}), **wanted})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def call(live: Live, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.request(method, f"{live.url}{path}", json=body, headers=headers, timeout=20)


def begin(live: Live, token: str) -> str:
    answer = call(live, "POST", "/v1/streams", token, CHAT)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def follow(live: Live, stream_id: str, token: str) -> httpx.Response:
    return call(live, "GET", f"/v1/streams/{stream_id}/events", token)


def ways_to(live: Live, stream_id: str, token: str) -> list[bool]:
    """Follow a stream and cancel it, by HTTP and over a WebSocket; return for each whether the stream was found."""
    by_http = [follow(live, stream_id, token), call(live, "DELETE", f"/v1/streams/{stream_id}", token)]
    assert {answer.status_code for answer in by_http} <= {200, 202, 404}
    with socket(live, headers={"authorization": f"Bearer {token}"}) as client:
        client.send("follow", ref="a", stream=stream_id)
        followed = is_there(client, "following")
        client.send("cancel", stream=stream_id)
        return [answer.status_code != 404 for answer in by_http] + [followed, is_there(client, "canceled")]


def is_there(client: WebSocketClient, wanted: str) -> bool:
    """Whether the message arrives, instead of an error that there is no such stream."""
    while (word := client.receive())["type"] not in (wanted, "error"):
        pass
    assert word["type"] == wanted or word["error"]["code"] == "not_found"
    return bool(word["type"] == wanted)


def test_a_renewed_token_reads_the_streams_of_the_expired_one(live: Live) -> None:
    expiring = mint(live, "visitor-7", expires_in=2)
    stream_id = begin(live, expiring)
    wait_for(lambda: follow(live, stream_id, expiring).status_code == 401)

    answer = follow(live, stream_id, mint(live, "visitor-7"))

    assert "[DONE]" in answer.text


@pytest.mark.parametrize(
    ("began", "asks", "is_found"),
    [
        ("visitor-7", "visitor-7", True),
        ("visitor-7", "visitor-8", False),
        ("visitor-7", "Visitor-7", False),
        ("visitor-7", None, False),
        (None, "visitor-7", False),
        (None, None, False),
    ],
)
def test_only_tokens_of_one_user_share_their_streams(
    live: Live, began: str | None, asks: str | None, is_found: bool
) -> None:
    stream_id = begin(live, mint(live, began))

    assert ways_to(live, stream_id, mint(live, asks)) == [is_found] * 4


def test_a_user_s_token_cannot_read_the_site_s_own_streams(live: Live) -> None:
    stream_id = begin(live, live.key)

    assert ways_to(live, stream_id, mint(live, "visitor-7")) == [False] * 4


def test_a_user_of_the_same_name_at_another_site_cannot_read_the_stream(live: Live) -> None:
    other = replace(live, made=create_site("Florist", f"florist-{uuid.uuid4().hex[:8]}"))
    stream_id = begin(live, mint(live, "visitor-7"))

    assert ways_to(live, stream_id, mint(other, "visitor-7")) == [False] * 4


def test_the_site_s_own_key_reads_the_streams_of_all_users(live: Live) -> None:
    stream_id = begin(live, mint(live, "visitor-7"))

    assert ways_to(live, stream_id, live.key) == [True] * 4

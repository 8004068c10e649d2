"""Whose streams a narrow token follows and cancels: what it began itself, and what its user's other tokens began."""

import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tenants.credentials import create_site
from tests.api.live.conftest import Live
from tests.api.live.sockets import Socket, socket
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
    """Follow a stream and cancel it, by HTTP and over a WebSocket; say of each whether there was one."""
    by_http = [follow(live, stream_id, token), call(live, "DELETE", f"/v1/streams/{stream_id}", token)]
    assert {answer.status_code for answer in by_http} <= {200, 202, 404}
    with socket(live, headers={"authorization": f"Bearer {token}"}) as client:
        client.say("follow", ref="a", stream=stream_id)
        followed = is_there(client, "following")
        client.say("cancel", stream=stream_id)
        return [answer.status_code != 404 for answer in by_http] + [followed, is_there(client, "canceled")]


def is_there(client: Socket, wanted: str) -> bool:
    """Say whether what is wanted comes, or the word that there is no such stream."""
    while (word := client.hear())["type"] not in (wanted, "error"):
        pass
    assert word["type"] == wanted or word["error"]["code"] == "not_found"
    return bool(word["type"] == wanted)


def test_a_renewed_token_goes_on_with_what_the_expired_one_began(live: Live) -> None:
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
def test_tokens_of_one_user_alone_share_their_streams(
    live: Live, began: str | None, asks: str | None, is_found: bool
) -> None:
    stream_id = begin(live, mint(live, began))

    assert ways_to(live, stream_id, mint(live, asks)) == [is_found] * 4


def test_what_the_site_began_is_no_user_s(live: Live) -> None:
    stream_id = begin(live, live.key)

    assert ways_to(live, stream_id, mint(live, "visitor-7")) == [False] * 4


def test_another_site_s_user_of_the_same_name_finds_nothing(live: Live) -> None:
    other = replace(live, made=create_site("Florist", f"florist-{uuid.uuid4().hex[:8]}"))
    stream_id = begin(live, mint(live, "visitor-7"))

    assert ways_to(live, stream_id, mint(other, "visitor-7")) == [False] * 4


def test_the_site_s_own_key_finds_the_streams_of_all_users(live: Live) -> None:
    stream_id = begin(live, mint(live, "visitor-7"))

    assert ways_to(live, stream_id, live.key) == [True] * 4

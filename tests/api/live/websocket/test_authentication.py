"""Authentication of WebSockets: credentials and origins, and the close codes of rejected connections."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings
from websockets.exceptions import InvalidStatus

from core import signing
from tenants.credentials import create_site
from tests.api.live.conftest import Live
from tests.api.live.test_stream_endpoints import CHAT
from tests.api.live.websocket.client import WebSocketClient, socket
from tests.polling import wait_for

ORIGIN, ELSEWHERE = "https://bakery.example", "https://thief.example"
NO_PROOF: Mapping[str, str] = {}


@pytest.fixture
def page(live: Live) -> Live:
    """A site with an allowed origin."""
    live.made.site.origins = [ORIGIN]
    live.made.site.save()
    return live


def ends(client: WebSocketClient) -> str:
    client.send("start", ref="a", body=CHAT)
    return str(client.receive_until("end")[-1]["kind"])


def refused(client: WebSocketClient) -> dict[str, Any] | None:
    """Try to start a stream; return the error, if any."""
    client.send("start", ref="a", body=CHAT)
    word = client.receive()
    while word["type"] not in ("end", "error"):
        word = client.receive()
    return word.get("error")


def detached(live: Live, **headers: str) -> dict[str, Any]:
    answer = live.post("/v1/streams", CHAT, **headers)
    assert answer.status_code == 202, answer.text
    given: dict[str, Any] = answer.json()
    return given


def test_a_key_may_come_as_a_subprotocol_or_with_the_first_message(live: Live) -> None:
    with socket(live, "nightdesk.v1", f"bearer.{live.key}") as client:
        assert client.connection.subprotocol == "nightdesk.v1"
        assert ends(client) == "done"

    with socket(live, headers=NO_PROOF) as client:
        client.send("auth", token=live.key)
        assert client.receive() == {"type": "ready", "site": live.made.site.public_id}
        assert ends(client) == "done"


def test_a_signed_handshake_opens_one_connection(live: Live) -> None:
    site, secret = live.made.site, live.made.signing_secret.secret
    timestamp, nonce = str(int(time.time())), uuid.uuid4().hex
    signature = signing.sign_request(secret, timestamp=timestamp, nonce=nonce, method="GET", target="/v1/ws", body=b"")
    headers = {"x-site-id": site.slug, "x-timestamp": timestamp, "x-nonce": nonce, "x-signature": signature}

    with socket(live, headers=headers) as client:
        assert ends(client) == "done"
    with socket(live, headers=headers) as again:
        assert again.receive()["error"]["code"] == "replayed_request"
        assert again.closed_with() == 4401


def test_a_client_without_valid_credentials_is_closed(live: Live) -> None:
    for word, code in (("auth", 1008), ("ping", 4401)):
        with socket(live, headers=NO_PROOF) as client:
            client.send(word)
            assert client.receive()["type"] == "error"
            assert client.closed_with() == code

    with socket(live, headers=NO_PROOF) as client:
        client.send("auth", token="nd_nonsense")
        assert client.receive()["error"]["code"] == "invalid_credentials"
        assert client.closed_with() == 4401


def test_invalid_or_conflicting_credentials_in_the_handshake_are_reported(live: Live) -> None:
    for offer in (["bearer.nd_wrong"], ["bearer.a", "ticket.b"]):
        with socket(live, "nightdesk.v1", *offer) as client:
            assert client.receive()["error"]["type"] == "authentication_error"
            assert client.closed_with() == 4401


def test_a_client_that_never_authenticates_is_closed_in_time(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_AUTH_SECONDS = 0.2

    with socket(live, headers=NO_PROOF) as client:
        assert client.closed_with() == 4401


def test_handshakes_to_other_addresses_or_with_other_subprotocols_are_rejected(live: Live) -> None:
    for path in ("/v1/ws/", "/v1/jobs", "/"):
        with pytest.raises(InvalidStatus), socket(live, path=path):
            pass
    with pytest.raises(InvalidStatus), socket(live, "graphql-ws"):
        pass


def test_a_handshake_from_an_unknown_origin_is_rejected(page: Live) -> None:
    # The gateway's own pages belong to no site.
    for origin in (ORIGIN, page.url):
        with socket(page, origin=origin) as client:
            assert ends(client) == "done"
    for origin in (ELSEWHERE, "null"):
        with pytest.raises(InvalidStatus), socket(page, origin=origin):
            pass


def test_a_page_of_another_site_is_closed(page: Live) -> None:
    other = replace(page, made=create_site("Library", f"library-{uuid.uuid4().hex[:8]}"))

    with socket(other, origin=ORIGIN) as client:
        assert client.receive()["error"]["code"] == "origin_not_allowed"
        assert client.closed_with() == 4403


def test_a_ticket_reads_only_its_stream(page: Live) -> None:
    own, other = detached(page, x_ticket_origin=ORIGIN), detached(page)

    with socket(page, "nightdesk.v1", f"ticket.{own['ticket']}", origin=ORIGIN) as client:
        client.send("follow", ref="a", stream=own["id"])
        assert client.receive_until("end")[-1]["kind"] == "done"
        client.send("follow", ref="b", stream=other["id"])
        client.send("start", ref="c", body=CHAT)
        refused = [client.receive_until("error")[-1] for _ in range(2)]
        client.send("cancel", stream=own["id"])
        canceling = client.receive_until("error")[-1]

    codes = {word["ref"]: word["error"]["code"] for word in refused}
    assert codes == {"b": "malformed_credentials", "c": "insufficient_scope"}
    assert canceling["error"]["code"] == "insufficient_scope"


def test_a_ticket_is_invalid_from_another_origin(page: Live) -> None:
    page.made.site.origins = [ORIGIN, "https://other.example"]
    page.made.site.save()
    ticket = detached(page, x_ticket_origin=ORIGIN)["ticket"]

    with socket(page, "nightdesk.v1", f"ticket.{ticket}", origin="https://other.example") as client:
        assert client.receive()["error"]["code"] == "origin_not_allowed"
        assert client.closed_with() == 4403


def test_a_narrow_token_starts_only_what_its_grant_allows(page: Live) -> None:
    wanted = {"scope": "chat:write", "model": "openai-chat", "max_tokens": 20, "origin": ORIGIN}
    token = page.post("/v1/tokens", wanted).json()["token"]

    with socket(page, "nightdesk.v1", f"bearer.{token}", origin=ORIGIN) as client:
        assert ends(client) == "done"
        client.send("start", ref="b", body={**CHAT, "model": "anthropic-chat"})
        error = client.receive_until("error")[-1]["error"]

    assert error["code"] == "model_not_allowed"


def test_a_narrow_token_follows_and_cancels_only_its_own_streams(page: Live) -> None:
    wanted = {"scope": "chat:write streams:read streams:write", "model": "openai-chat", "origin": ORIGIN}
    tokens = [page.post("/v1/tokens", wanted).json()["token"] for _ in range(2)]

    with socket(page, "nightdesk.v1", f"bearer.{tokens[0]}", origin=ORIGIN) as client:
        client.send("start", ref="a", body=CHAT)
        stream_id = client.receive_until("end")[1]["stream"]
        client.send("follow", ref="a", stream=stream_id)
        assert client.receive_until("end")[-1]["kind"] == "done"
    with socket(page, "nightdesk.v1", f"bearer.{tokens[1]}", origin=ORIGIN) as other:
        for kind in ("follow", "cancel"):
            other.send(kind, stream=stream_id, **({"ref": "a"} if kind == "follow" else {}))
            assert other.receive_until("error")[-1]["error"]["code"] == "not_found"


def test_a_revoked_key_cannot_start_a_stream(live: Live) -> None:
    with socket(live) as client:
        assert ends(client) == "done"
        live.made.api_key.credential.delete()
        # Credentials are cached for up to a second.
        refusal = wait_for(lambda: refused(client), seconds=5)

    assert refusal["code"] == "invalid_credentials"


def test_an_idle_connection_is_closed(live: Live, settings: Settings) -> None:
    settings.WEBSOCKET_IDLE_SECONDS = settings.WEBSOCKET_AUTH_SECONDS = 0.3

    with socket(live) as client:
        assert client.closed_with() == 4408


def test_a_silent_client_is_pinged_and_closed_without_a_pong(live: Live, settings: Settings) -> None:
    settings.STREAM_KEEPALIVE_SECONDS, settings.WEBSOCKET_PONG_SECONDS = 0.1, 0.5

    with socket(live) as client:
        client.answers_pings = False
        assert client.receive()["type"] == "ready"
        for _ in range(3):
            ping = client.receive()
            assert ping["type"] == "ping"
            client.send("pong", id=ping["id"])
        assert client.closed_with() == 4408

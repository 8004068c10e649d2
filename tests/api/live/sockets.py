"""A WebSocket's client, on a library that is not the server's."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.api.live.conftest import Live

SECONDS = 20.0
Word = dict[str, Any]


class Socket:
    """Says and hears words; answers pings by itself."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.answers_pings = True
        self.heard_bytes = 0

    def say(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def hear(self) -> Word:
        """Return the next word that is no ping."""
        while True:
            text = self.connection.recv(SECONDS)
            self.heard_bytes += len(text)
            word: Word = json.loads(text)
            if word["type"] != "ping" or not self.answers_pings:
                return word
            self.say("pong", id=word["id"])

    def hear_until(self, kind_of_word: str, /, **fields: Any) -> list[Word]:
        """Return the words up to and with one of this kind."""
        words = [self.hear()]
        while words[-1]["type"] != kind_of_word or not fields.items() <= words[-1].items():
            words.append(self.hear())
        return words

    def closed_with(self) -> int:
        """Read to the end; return the code."""
        with pytest.raises(ConnectionClosed) as closed:
            self.hear_until("nothing more")
        assert closed.value.rcvd is not None
        # Daphne has codes of its own where Autobahn allows none of ours.
        return {4001: 1001, 4008: 1008, 4011: 1011, 4013: 1013}.get(closed.value.rcvd.code, closed.value.rcvd.code)


@contextmanager
def socket(
    live: Live,
    *offer: str,
    headers: Mapping[str, str] | None = None,
    origin: str | None = None,
    path: str = "/v1/ws",
    **more: Any,
) -> Iterator[Socket]:
    """Open a connection: with an offer of subprotocols, or with headers; with the site's key where neither is given."""
    url = live.url.replace("http", "ws", 1) + path
    connection = connect(
        url,
        subprotocols=[Subprotocol(each) for each in offer] or None,
        additional_headers=headers if headers is not None or offer else live.headers,
        origin=origin,  # type: ignore[arg-type]
        proxy=None,
        open_timeout=SECONDS,
        **more,
    )
    with connection:
        yield Socket(connection)


def data_of(words: list[Word], ref: str) -> list[Any]:
    return [word["data"] for word in words if word["type"] == "event" and word["ref"] == ref]


def text_of(words: list[Word], ref: str) -> str:
    """Join the text of OpenAI's chunks."""
    chunks = [data for data in data_of(words, ref) if isinstance(data, dict)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

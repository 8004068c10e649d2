"""A WebSocket client, on another library than the server's."""

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
Message = dict[str, Any]


class WebSocketClient:
    """Sends and receives messages; answers pings automatically."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.answers_pings = True
        self.received_bytes = 0

    def send(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def receive(self) -> Message:
        """Return the next message that is not a ping."""
        while True:
            text = self.connection.recv(SECONDS)
            self.received_bytes += len(text)
            message: Message = json.loads(text)
            if message["type"] != "ping" or not self.answers_pings:
                return message
            self.send("pong", id=message["id"])

    def receive_until(self, message_type: str, /, **fields: Any) -> list[Message]:
        """Return the messages up to and including one of this type with these fields."""
        messages = [self.receive()]
        while messages[-1]["type"] != message_type or not fields.items() <= messages[-1].items():
            messages.append(self.receive())
        return messages

    def closed_with(self) -> int:
        """Read until the connection closes; return the code."""
        with pytest.raises(ConnectionClosed) as closed:
            self.receive_until("nothing more")
        assert closed.value.rcvd is not None
        # Behind Daphne we use other codes where Autobahn does not allow ours.
        return {4001: 1001, 4008: 1008, 4011: 1011, 4013: 1013}.get(closed.value.rcvd.code, closed.value.rcvd.code)


@contextmanager
def socket(
    live: Live,
    *offer: str,
    headers: Mapping[str, str] | None = None,
    origin: str | None = None,
    path: str = "/v1/ws",
    **more: Any,
) -> Iterator[WebSocketClient]:
    """Open a connection with subprotocols or headers; by default, with the site's key."""
    url = live.url.replace("http", "ws", 1) + path
    connection = connect(
        url,
        subprotocols=[Subprotocol(name) for name in offer] or None,
        additional_headers=headers if headers is not None or offer else live.headers,
        origin=origin,  # type: ignore[arg-type]
        proxy=None,
        open_timeout=SECONDS,
        **more,
    )
    with connection:
        yield WebSocketClient(connection)


def data_of(messages: list[Message], ref: str) -> list[Any]:
    return [message["data"] for message in messages if message["type"] == "event" and message["ref"] == ref]


def text_of(messages: list[Message], ref: str) -> str:
    """Join the text of OpenAI's chunks."""
    chunks = [data for data in data_of(messages, ref) if isinstance(data, dict)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

"""An HTTP client over bare sockets that can be cut off at any byte, and a parser of the truncated responses."""

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from providers.types import Dialect

T = TypeVar("T")
SECONDS = 30


@dataclass(frozen=True, slots=True)
class Event:
    """One complete event of a stream, as a client parses it."""

    id: str
    name: str
    data: str

    @property
    def seq(self) -> int:
        return int(self.id.rpartition("-")[2])

    @property
    def stream(self) -> str:
        return self.id.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """What arrived of a response."""

    raw: bytes
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Whether the body is complete, by the framing of HTTP.
    is_whole: bool = False

    @property
    def events(self) -> list[Event]:
        *whole, _ = self.body.decode(errors="replace").split("\n\n")
        found = [_to_event(block) for block in whole]
        return [event for event in found if event is not None]

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    url: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Any = None,
    *,
    cut_after: int | None = None,
    until: bytes | None = None,
) -> Answer:
    """Send a request and read the response; disconnect after `cut_after` bytes, or once `until` has arrived."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    raw = bytearray()
    try:
        writer.write(_request(method, path, {"host": parts.netloc, **headers}, body))
        async with asyncio.timeout(SECONDS):
            while cut_after is None or len(raw) < cut_after:
                some = await reader.read(65_536 if cut_after is None else cut_after - len(raw))
                raw += some
                if not some or (until is not None and until in raw):
                    break
    except ConnectionResetError:
        pass
    finally:
        writer.transport.abort()
    return read_answer(bytes(raw))


def at_once(*asking: Awaitable[T], most: int = 1000) -> list[T]:
    """Run all concurrently, at most `most` at a time, and return the results."""

    async def gather() -> list[T]:
        turn = asyncio.Semaphore(most)

        async def take(one: Awaitable[T]) -> T:
            async with turn:
                return await one

        return await asyncio.gather(*map(take, asking))

    return asyncio.run(gather())


def read_answer(raw: bytes) -> Answer:
    """Parse a response that may be truncated anywhere."""
    head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return Answer(raw)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body, is_whole = _unchunk(rest)
    else:
        body, is_whole = rest, len(rest) == int(headers.get("content-length", -1))
    return Answer(raw, int(first.split()[1]), headers, body, is_whole)


def text_of(events: Iterable[Event], dialect: Dialect) -> str:
    """Join the text that a client shows."""
    decoded = [json.loads(event.data) for event in events if event.data.startswith("{")]
    if dialect is Dialect.ANTHROPIC:
        return "".join(each["delta"].get("text", "") for each in decoded if each["type"] == "content_block_delta")
    choices = [choice for each in decoded for choice in each.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def has_clean_end(events: Iterable[Event], dialect: Dialect) -> bool:
    """Whether a client of the dialect would take this for a complete answer."""
    if dialect is Dialect.ANTHROPIC:
        return any(event.name == "message_stop" for event in events)
    return any(event.data == "[DONE]" for event in events)


def error_in(events: Iterable[Event], dialect: Dialect) -> dict[str, Any] | None:
    """Return the error that ends a stream, if it is one of the dialect."""
    last = list(events)[-1:]
    found = json.loads(last[0].data) if last and last[0].data.startswith("{") else {}
    if dialect is Dialect.ANTHROPIC and (not last or last[0].name != "error" or found.get("type") != "error"):
        return None
    error: dict[str, Any] | None = found.get("error")
    return error


def _request(method: str, path: str, headers: Mapping[str, str], body: Any) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["connection: close", "content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _unchunk(raw: bytes) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        size, found, rest = raw.partition(b"\r\n")
        if not found:
            return bytes(body), False
        length = int(size, 16)
        body += rest[:length]
        if length == 0:
            return bytes(body), rest.endswith(b"\r\n")
        raw = rest[length + 2 :]


def _to_event(block: str) -> Event | None:
    fields: dict[str, str] = {}
    for line in block.splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ") if name not in fields else f"{fields[name]}\n{value.removeprefix(' ')}"
    return Event(fields.get("id", ""), fields.get("event", ""), fields["data"]) if "data" in fields else None

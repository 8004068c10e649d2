"""The event loop and thread that each step of a request runs in."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from api.sync_handler import SyncHandler
from core.database_threads import DatabaseThreadPool

SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "scheme": "http",
}


class Answering(SyncHandler):
    """Returns the same response to every request, in its only thread."""

    def __init__(self, answer: HttpResponseBase) -> None:
        super().__init__()
        self._answer = answer
        self.threads = DatabaseThreadPool("only", 1)

    def load_middleware(self, is_async: bool = False) -> None:
        self._middleware_chain = lambda request: self._answer

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await self.threads.run(self.get_response, request)


@pytest.fixture
def seen() -> Iterator[list[tuple[str, str]]]:
    """Record the thread of each of Django's signals."""
    threads: list[tuple[str, str]] = []

    def started(**_: Any) -> None:
        threads.append(("started", threading.current_thread().name))

    def finished(**_: Any) -> None:
        threads.append(("finished", threading.current_thread().name))

    request_started.connect(started)
    request_finished.connect(finished)
    yield threads
    request_started.disconnect(started)
    request_finished.disconnect(finished)


def ask(handler: SyncHandler, *, leaves: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """Send a request; return the messages of the handler. The client disconnects when the event is set."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            if message := next(messages, None):
                return message
            await (leaves or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(handler(dict(SCOPE), receive, send), 10)

    asyncio.run(run())
    return sent


def test_the_signals_of_a_request_run_in_the_thread_of_its_view(seen: list[tuple[str, str]]) -> None:
    sent = ask(Answering(HttpResponse(b"Hello.")))

    assert [message.get("body") for message in sent] == [None, b"Hello."]
    assert seen == [("started", "only_0"), ("finished", "only_0")]


def test_a_request_starts_no_thread(seen: list[tuple[str, str]]) -> None:
    handler = Answering(HttpResponse(b"Hello."))
    ask(handler)
    before = set(threading.enumerate())

    ask(handler)

    assert set(threading.enumerate()) <= before


def test_a_streamed_response_finishes_after_its_last_block_was_sent(seen: list[tuple[str, str]]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"Hel", b"lo."):
            assert [what for what, _ in seen] == ["started"]
            yield piece

    sent = ask(Answering(StreamingHttpResponse(pieces())))

    assert b"".join(message.get("body", b"") for message in sent) == b"Hello."
    assert [what for what, _ in seen] == ["started", "finished"]


def test_a_streamed_response_stops_after_a_disconnect(seen: list[tuple[str, str]]) -> None:
    left, given_up = asyncio.Event(), []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"Hel"
            left.set()
            await asyncio.Event().wait()
        finally:
            given_up.append(True)

    ask(Answering(StreamingHttpResponse(pieces())), leaves=left)

    assert given_up == [True]
    assert [what for what, _ in seen] == ["started", "finished"]


def test_a_streamed_response_that_fails_has_no_clean_end(seen: list[tuple[str, str]]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"Hel"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        ask(Answering(StreamingHttpResponse(pieces())))

    assert [what for what, _ in seen] == ["started", "finished"]

"""Long answers, as a web server sends them."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory

from api.asgi import DjangoApp
from api.streaming_response import BLOCK_BYTES, streaming_response
from core.database_threads import DatabaseThreadPool

GET = RequestFactory().get("/")


def sent_by(pieces: Iterator[bytes], request: HttpRequest = GET) -> list[dict[str, Any]]:
    """Stream the pieces through the handler; return the server's messages."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    threads = DatabaseThreadPool("test", 1)
    try:
        desk = DjangoApp(DatabaseThreadPool("web", 1), slow=threads)
        asyncio.run(desk.send_response(streaming_response(request, pieces, "text/plain"), send))
    finally:
        threads.close()
    return messages


def test_small_pieces_are_gathered_and_large_ones_sent_as_they_come() -> None:
    small, large = [b"x" * 100] * 1000, [b"y" * BLOCK_BYTES] * 2

    bodies = [message.get("body", b"") for message in sent_by(iter(small + large))[1:]]

    assert b"".join(bodies) == b"".join(small + large)
    assert len(bodies) < 10


def test_nothing_at_all_is_an_empty_answer() -> None:
    start, *rest = sent_by(iter(()))

    assert start["status"] == 200
    assert b"".join(message.get("body", b"") for message in rest) == b""
    assert not rest[-1].get("more_body")


@pytest.mark.django_db(transaction=True)
def test_pieces_are_made_in_the_threads_and_hold_no_connection_between_two() -> None:
    seen: list[tuple[str, bool]] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            seen.append((threading.current_thread().name, connection.connection is None))
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            yield b"x" * BLOCK_BYTES

    sent_by(pieces())

    # The first is made with the answer's head.
    assert seen[1:] == [("test_0", True)] * 2


def test_what_goes_wrong_at_once_is_raised_before_anything_is_sent() -> None:
    def pieces() -> Iterator[bytes]:
        raise ValueError("broken")
        yield b""

    with pytest.raises(ValueError, match="broken"):
        streaming_response(GET, pieces(), "text/plain")


def test_what_goes_wrong_later_is_no_clean_end() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * BLOCK_BYTES
        raise ValueError("broken")

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def run() -> None:
        threads = DatabaseThreadPool("test", 1)
        await DjangoApp(threads, slow=threads).send_response(streaming_response(GET, pieces(), "text/plain"), send)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(run())
    assert all(message["more_body"] for message in messages[1:])


def test_for_head_no_piece_is_made() -> None:
    def pieces() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    assert b"".join(m.get("body", b"") for m in sent_by(pieces(), RequestFactory().head("/"))[1:]) == b""

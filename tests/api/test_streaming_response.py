"""Streamed responses through the ASGI handler."""

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


def test_small_pieces_are_joined_and_large_ones_sent_unchanged() -> None:
    small, large = [b"x" * 100] * 1000, [b"y" * BLOCK_BYTES] * 2

    bodies = [message.get("body", b"") for message in sent_by(iter(small + large))[1:]]

    assert b"".join(bodies) == b"".join(small + large)
    assert len(bodies) < 10


def test_no_pieces_make_an_empty_response() -> None:
    start, *rest = sent_by(iter(()))

    assert start["status"] == 200
    assert b"".join(message.get("body", b"") for message in rest) == b""
    assert not rest[-1].get("more_body")


@pytest.mark.django_db(transaction=True)
def test_blocks_are_generated_in_threads_and_hold_no_connection_in_between() -> None:
    seen: list[tuple[str, bool]] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            seen.append((threading.current_thread().name, connection.connection is None))
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            yield b"x" * BLOCK_BYTES

    sent_by(pieces())

    # The first block is generated together with the headers.
    assert seen[1:] == [("test_0", True)] * 2


def test_an_error_in_the_first_block_is_raised_before_anything_is_sent() -> None:
    def pieces() -> Iterator[bytes]:
        raise ValueError("broken")
        yield b""

    with pytest.raises(ValueError, match="broken"):
        streaming_response(GET, pieces(), "text/plain")


def test_a_later_error_interrupts_the_response() -> None:
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


def test_head_generates_no_block() -> None:
    def pieces() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    assert b"".join(m.get("body", b"") for m in sent_by(pieces(), RequestFactory().head("/"))[1:]) == b""

"""A server that carries doorbells answers, or it does not, and either is known soon."""

import socket
import time
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from core.reachability import is_broker_reachable, is_redis_reachable


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_redis_that_answers_is_found_out_either_way(settings: Settings) -> None:
    assert is_redis_reachable(settings.REDIS_URL)
    assert is_broker_reachable(settings.REDIS_URL)


def test_redis_that_does_not_let_us_in_does_not_answer(settings: Settings) -> None:
    assert not is_redis_reachable(settings.REDIS_URL.replace("redis://:", "redis://:wrong"))


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_nobody_there_is_no_answer(kind: str) -> None:
    assert not is_broker_reachable(f"{kind}://desk:secret@127.0.0.1:1/0")


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_silence_is_no_answer_and_is_not_waited_out(kind: str, silent: int) -> None:
    started = time.monotonic()

    assert not is_broker_reachable(f"{kind}://desk:secret@127.0.0.1:{silent}/0")

    assert time.monotonic() - started < 4

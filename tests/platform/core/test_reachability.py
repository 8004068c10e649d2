"""Reachability checks of Redis and the broker give a result within the timeout."""

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


def test_a_responding_redis_is_reachable(settings: Settings) -> None:
    assert is_redis_reachable(settings.REDIS_URL)
    assert is_broker_reachable(settings.REDIS_URL)


def test_redis_with_wrong_credentials_is_not_reachable(settings: Settings) -> None:
    assert not is_redis_reachable(settings.REDIS_URL.replace("redis://:", "redis://:wrong"))


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_a_closed_port_is_not_reachable(kind: str) -> None:
    assert not is_broker_reachable(f"{kind}://desk:secret@127.0.0.1:1/0")


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_a_silent_server_is_unreachable_after_the_timeout(kind: str, silent: int) -> None:
    started = time.monotonic()

    assert not is_broker_reachable(f"{kind}://desk:secret@127.0.0.1:{silent}/0")

    assert time.monotonic() - started < 4

"""Clients of Redis (or Valkey): one per event loop, Lua scripts on a multiplexed connection, one error for failures."""

import asyncio
import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from core.redis_multiplexing import MultiplexedConnection

#: Timeouts for connecting and for each reply. They are short: a visitor waits for the request.
CONNECT_TIMEOUT_SECONDS, REPLY_TIMEOUT_SECONDS = 0.5, 1.0
#: Per process. Commands are short; only subscriptions to streams hold a connection for long.
MAX_CONNECTIONS = 512

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, redis.asyncio.Redis]] = WeakKeyDictionary()

_multiplexed: WeakKeyDictionary[redis.asyncio.Redis, MultiplexedConnection] = WeakKeyDictionary()


class RedisUnavailable(Exception):
    """Redis is unreachable, or cannot process the command now. Whether it took effect is unknown."""


def client(url: str) -> redis.asyncio.Redis:
    """Return the client of the running event loop for a server. Keys and values are bytes."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if url not in clients:
        clients[url] = _connect(url)
    return clients[url]


def _connect(url: str) -> redis.asyncio.Redis:
    server = redis.asyncio.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=REPLY_TIMEOUT_SECONDS,
        max_connections=MAX_CONNECTIONS,
        protocol=2,
    )
    # The class of connections depends on the URL: TCP, TLS or a Unix socket.
    pool: Any = server.connection_pool
    pool.connection_class = _cancelable(pool.connection_class)
    return server


@functools.cache
def _cancelable(kind: type[Any]) -> type[Any]:
    """Return a subclass of a connection class that sends without `asyncio.wait_for`.

    In Python 3.11 that swallows a cancellation that arrives when the awaited work is done, as sending nearly always is;
    and it creates a task for each command.
    """

    class Cancelable(kind):  # type: ignore[misc] # the base class depends on the URL
        socket_timeout: float | None

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            seconds, self.socket_timeout = self.socket_timeout, None
            try:
                async with asyncio.timeout(seconds):
                    await super().send_packed_command(command, check_health)
            finally:
                self.socket_timeout = seconds

    return Cancelable


async def close_clients() -> None:
    """Close the clients of the running event loop."""
    for each in _clients.pop(asyncio.get_running_loop(), {}).values():
        if connection := _multiplexed.pop(each, None):
            await connection.close()
        await each.aclose()


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Raise `RedisUnavailable` for any error of the connection or the server."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"{type(error).__name__}: {error}"[:200]) from error


@contextmanager
def blocking_client(url: str) -> Iterator[redis.Redis]:
    """Provide a client for blocking code. Raises `RedisUnavailable` for any error of the connection or the server."""
    server = redis.Redis.from_url(
        url, socket_connect_timeout=CONNECT_TIMEOUT_SECONDS, socket_timeout=REPLY_TIMEOUT_SECONDS
    )
    try:
        with translate_redis_errors():
            yield server
    finally:
        server.close()


class LuaScript:
    """A Lua script. Once the server has it, it is called by its hash, in one round trip."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, server: redis.asyncio.Redis, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """Run the script and return its reply. Raises `RedisUnavailable`."""
        connection = _multiplexed_connection(server)
        with translate_redis_errors():
            try:
                return await connection.execute("EVALSHA", self._sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await connection.execute("EVAL", self._source, len(keys), *keys, *arguments)

    def run_blocking(self, server: redis.Redis, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """Run the script in code that may block. Raises `RedisUnavailable`."""
        with translate_redis_errors():
            try:
                return server.evalsha(self._sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return server.eval(self._source, len(keys), *keys, *arguments)


def _multiplexed_connection(server: redis.asyncio.Redis) -> MultiplexedConnection:
    if server not in _multiplexed:
        _multiplexed[server] = MultiplexedConnection(server, reply_timeout_seconds=REPLY_TIMEOUT_SECONDS)
    return _multiplexed[server]

"""Redis or Valkey as fast memory: a client for each event loop, scripts, and one error for all that can fail."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

#: How long a server may take to be reached, and for each answer. Who asks here has a visitor waiting.
CONNECT_SECONDS, ANSWER_SECONDS = 0.5, 1.0
#: Of one process. Commands are short; only readers that wait for a stream's next event hold one for long.
CONNECTIONS = 512

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, redis.asyncio.Redis]] = WeakKeyDictionary()


class RedisAway(Exception):
    """Redis cannot be reached, or cannot do it now. Nothing is known of what became of the command."""


def client(url: str) -> redis.asyncio.Redis:
    """Return the running loop's client for a server. Keys and values are bytes."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if url not in clients:
        clients[url] = redis.asyncio.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            max_connections=CONNECTIONS,
            protocol=2,
        )
    return clients[url]


async def close_clients() -> None:
    """Close the running loop's clients."""
    for each in _clients.pop(asyncio.get_running_loop(), {}).values():
        await each.aclose()


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raise `RedisAway` for whatever goes wrong between us and the server."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisAway(f"{type(error).__name__}: {error}"[:200]) from error


class Script:
    """A Lua script, sent by its name once the server knows it: one round trip."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, server: redis.asyncio.Redis, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """Return what the script returns. Raises `RedisAway`."""
        with redis_errors():
            try:
                return await server.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
            except NoScriptError:
                return await server.execute_command("EVAL", self._source, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]

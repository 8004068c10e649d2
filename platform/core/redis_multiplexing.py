"""One connection to Redis that many tasks share: commands go out as they come, answers come back in their order.

For short commands that every live request needs. One from a pool of connections takes five times the processor time:
it is written and read by tasks and streams of their own. What waits in Redis needs a connection of its own, too.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError


@dataclass(frozen=True, slots=True)
class _PendingReply:
    reply: "asyncio.Future[Any]"
    #: In the loop's time.
    deadline: float


class MultiplexedConnection:
    """A command is never sent twice: where its answer is lost, nothing is known of what became of it."""

    def __init__(self, server: redis.asyncio.Redis, *, reply_timeout_seconds: float) -> None:
        self._server = server
        self._reply_timeout_seconds = reply_timeout_seconds
        self._open: _OpenConnection | None = None
        self._connecting: asyncio.Task[_OpenConnection] | None = None

    async def execute(self, *command: Any) -> Any:
        """Return the answer. Raises `RedisError` and `OSError`."""
        wire = self._open
        if wire is None or wire.is_broken:
            wire = await self._connect_once()
        return await wire.send(command)

    def close(self) -> None:
        """Hang up; who still waits hears of it."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._open is not None:
            self._open.abort(_connection_closed())

    async def _connect_once(self) -> "_OpenConnection":
        """Connect, once for all who wait for it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open_connection(), name="redis-connect")
            self._connecting.add_done_callback(self._on_connected)
        connecting = self._connecting
        try:
            # Shielded: others wait for it too.
            return await asyncio.shield(connecting)
        except asyncio.CancelledError as error:
            if connecting.cancelled():
                raise _connection_closed() from error
            raise

    async def _open_connection(self) -> "_OpenConnection":
        # redis-py knows every kind of address and proof. Once it has said hello, the connection is ours.
        pool = self._server.connection_pool
        connection: Any = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})
        try:
            async with asyncio.timeout(self._reply_timeout_seconds):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # Not public, and the only way below its streams.
        writer, connection._reader, connection._writer = connection._writer, None, None
        return _OpenConnection(writer, self._reply_timeout_seconds)

    def _on_connected(self, connecting: "asyncio.Task[_OpenConnection]") -> None:
        self._connecting = None
        if connecting.cancelled():
            return
        # Looked at, so that asyncio does not complain where nobody waits any more.
        if connecting.exception() is None:
            self._open = connecting.result()


class _OpenConnection(asyncio.Protocol):
    """An open connection."""

    def __init__(self, writer: asyncio.StreamWriter, reply_timeout_seconds: float) -> None:
        #: Kept, for it closes its connection when it goes.
        self._writer = writer
        self._reply_timeout_seconds = reply_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=RedisConnectionError, replyError=_to_error)
        self._pending: deque[_PendingReply] = deque()
        self._timeout_handle: asyncio.TimerHandle | None = None
        self._transport = cast(asyncio.Transport, writer.transport)
        self._transport.set_protocol(self)
        self.is_broken = self._transport.is_closing()

    def send(self, command: tuple[Any, ...]) -> "asyncio.Future[Any]":
        """Send a command; its answer comes in time, or an error does."""
        if self.is_broken:
            raise _connection_closed()
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(_PendingReply(reply, self._loop.time() + self._reply_timeout_seconds))
        self._transport.write(hiredis.pack_command(command))
        if self._timeout_handle is None:
            self._timeout_handle = self._loop.call_at(self._pending[0].deadline, self._check_timeouts)
        return reply

    def abort(self, reason: OSError) -> None:
        """Close the connection. The answers to come are nobody's any more."""
        self.is_broken = True
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._transport.abort()
        waiting, self._pending = self._pending, deque()
        for each in waiting:
            _resolve(each.reply, reason)

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                _resolve(self._pending.popleft().reply, reply)
        except (RedisConnectionError, IndexError) as error:
            self.abort(ConnectionResetError(f"Protocol error: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(ConnectionResetError(f"The connection was lost: {error or 'the server has hung up'}."))

    def _check_timeouts(self) -> None:
        self._timeout_handle = None
        if not self._pending:
            return
        if self._pending[0].deadline <= self._loop.time():
            self.abort(TimeoutError(f"The server did not answer within {self._reply_timeout_seconds:g} s."))
        else:
            self._timeout_handle = self._loop.call_at(self._pending[0].deadline, self._check_timeouts)


def _connection_closed() -> ConnectionResetError:
    return ConnectionResetError("The connection was closed.")


def _to_error(text: str) -> Exception:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


def _resolve(reply: "asyncio.Future[Any]", value: Any) -> None:
    if reply.done():
        return  # Whoever asked has gone.
    if isinstance(value, Exception):
        reply.set_exception(value)
    else:
        reply.set_result(value)

"""A multiplexed connection to Redis, shared by many tasks: commands are pipelined, and replies arrive in their order.

It is for the short commands of every live request. A connection from redis-py's pool takes five times the processor
time, because it is written and read through asyncio streams. Blocking commands need a connection of their own.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from core.tasks import cancel_and_wait


@dataclass(frozen=True, slots=True)
class _PendingReply:
    reply: "asyncio.Future[Any]"
    #: By the clock of the event loop.
    deadline: float


class MultiplexedConnection:
    """Connects when needed, and again after a failure. A command is never sent twice: if its reply is lost, whether it
    took effect is unknown.
    """

    def __init__(self, server: redis.asyncio.Redis, *, reply_timeout_seconds: float) -> None:
        self._server = server
        self._reply_timeout_seconds = reply_timeout_seconds
        self._open: _OpenConnection | None = None
        self._connecting: asyncio.Task[_OpenConnection] | None = None

    async def execute(self, *command: Any) -> Any:
        """Send a command and return its reply. Raises `RedisError` and `OSError`."""
        connection = self._open
        if connection is None or connection.is_broken:
            connection = await self._connect_once()
        return await connection.send(command)

    async def close(self) -> None:
        """Close the connection; pending commands fail."""
        await cancel_and_wait(self._connecting)
        if self._open is not None:
            self._open.abort(_connection_closed())

    async def _connect_once(self) -> "_OpenConnection":
        """Connect, once for all waiting tasks (single flight)."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open_connection(), name="redis-connect")
            self._connecting.add_done_callback(self._on_connected)
        connecting = self._connecting
        try:
            # Shielded: other tasks wait for it too.
            return await asyncio.shield(connecting)
        except asyncio.CancelledError as error:
            if connecting.cancelled():
                raise _connection_closed() from error
            raise

    async def _open_connection(self) -> "_OpenConnection":
        # redis-py handles every kind of URL and authentication. After its handshake, the connection is ours.
        pool = self._server.connection_pool
        connection: Any = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})
        try:
            async with asyncio.timeout(self._reply_timeout_seconds):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # Private attributes, and the only way to its transport.
        writer, connection._reader, connection._writer = connection._writer, None, None
        return _OpenConnection(writer, self._reply_timeout_seconds)

    def _on_connected(self, connecting: "asyncio.Task[_OpenConnection]") -> None:
        self._connecting = None
        if connecting.cancelled():
            return
        # Retrieved, so that asyncio does not warn if no task waits any more.
        if connecting.exception() is None:
            self._open = connecting.result()


class _OpenConnection(asyncio.Protocol):
    """One open connection: matches replies to commands in order, and aborts at the first reply that is late."""

    def __init__(self, writer: asyncio.StreamWriter, reply_timeout_seconds: float) -> None:
        #: Referenced, because it closes the transport when it is garbage collected.
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
        """Send a command; the future gets its reply, or an error after the timeout."""
        if self.is_broken:
            raise _connection_closed()
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(_PendingReply(reply, self._loop.time() + self._reply_timeout_seconds))
        self._transport.write(hiredis.pack_command(command))
        if self._timeout_handle is None:
            self._timeout_handle = self._loop.call_at(self._pending[0].deadline, self._check_timeouts)
        return reply

    def abort(self, reason: OSError) -> None:
        """Close the connection, and fail all pending commands."""
        self.is_broken = True
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._transport.abort()
        waiting, self._pending = self._pending, deque()
        for each in waiting:
            _resolve(each.reply, reason)

    # Callbacks of the transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                _resolve(self._pending.popleft().reply, reply)
        except (RedisConnectionError, IndexError) as error:
            self.abort(ConnectionResetError(f"Protocol error: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(ConnectionResetError(f"The connection was lost: {error or 'closed by the server'}."))

    def _check_timeouts(self) -> None:
        self._timeout_handle = None
        if not self._pending:
            return
        if self._pending[0].deadline <= self._loop.time():
            self.abort(TimeoutError(f"The server did not reply within {self._reply_timeout_seconds:g} s."))
        else:
            self._timeout_handle = self._loop.call_at(self._pending[0].deadline, self._check_timeouts)


def _connection_closed() -> ConnectionResetError:
    return ConnectionResetError("The connection was closed.")


def _to_error(text: str) -> Exception:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


def _resolve(reply: "asyncio.Future[Any]", value: Any) -> None:
    if reply.done():
        return  # The waiting task was canceled.
    if isinstance(value, Exception):
        reply.set_exception(value)
    else:
        reply.set_result(value)

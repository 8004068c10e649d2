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
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import NoScriptError, ResponseError


@dataclass(frozen=True, slots=True)
class _Waiting:
    answer: "asyncio.Future[Any]"
    #: In the loop's time.
    due: float


class Line:
    """A command is never sent twice: where its answer is lost, nothing is known of what became of it."""

    def __init__(self, server: redis.asyncio.Redis, *, answer_seconds: float) -> None:
        self._server = server
        self._answer_seconds = answer_seconds
        self._wire: _Wire | None = None
        self._dialing: asyncio.Task[_Wire] | None = None

    async def call(self, *command: Any) -> Any:
        """Return the answer. Raises `RedisError` and `OSError`."""
        wire = self._wire
        if wire is None or wire.is_broken:
            wire = await self._dial()
        return await wire.ask(command)

    def close(self) -> None:
        """Hang up; who still waits hears of it."""
        if self._dialing is not None:
            self._dialing.cancel()
        if self._wire is not None:
            self._wire.hang_up(_closed())

    async def _dial(self) -> "_Wire":
        """Connect, once for all who wait for it."""
        if self._dialing is None:
            self._dialing = asyncio.create_task(self._connect(), name="redis-line")
            self._dialing.add_done_callback(self._dialed)
        dialing = self._dialing
        try:
            # Shielded: others wait for it too.
            return await asyncio.shield(dialing)
        except asyncio.CancelledError as error:
            if dialing.cancelled():
                raise _closed() from error
            raise

    async def _connect(self) -> "_Wire":
        # redis-py knows every kind of address and proof. Once it has said hello, the connection is ours.
        pool = self._server.connection_pool
        connection: Any = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})
        try:
            async with asyncio.timeout(self._answer_seconds):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # Not public, and the only way below its streams.
        writer, connection._reader, connection._writer = connection._writer, None, None
        return _Wire(writer, self._answer_seconds)

    def _dialed(self, dialing: "asyncio.Task[_Wire]") -> None:
        self._dialing = None
        if dialing.cancelled():
            return
        # Looked at, so that asyncio does not complain where nobody waits any more.
        if dialing.exception() is None:
            self._wire = dialing.result()


class _Wire(asyncio.Protocol):
    """An open connection."""

    def __init__(self, writer: asyncio.StreamWriter, answer_seconds: float) -> None:
        #: Kept, for it closes its connection when it goes.
        self._writer = writer
        self._answer_seconds = answer_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=Broken, replyError=_to_error)
        self._waiting: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._transport = cast(asyncio.Transport, writer.transport)
        self._transport.set_protocol(self)
        self.is_broken = self._transport.is_closing()

    def ask(self, command: tuple[Any, ...]) -> "asyncio.Future[Any]":
        """Send a command; its answer comes in time, or an error does."""
        if self.is_broken:
            raise _closed()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Waiting(answer, self._loop.time() + self._answer_seconds))
        self._transport.write(hiredis.pack_command(command))
        if self._alarm is None:
            self._alarm = self._loop.call_at(self._waiting[0].due, self._look_at_the_clock)
        return answer

    def hang_up(self, why: OSError) -> None:
        """Close the connection. The answers to come are nobody's any more."""
        self.is_broken = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            _hand_out(each.answer, why)

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                _hand_out(self._waiting.popleft().answer, answer)
        except (Broken, IndexError) as error:
            self.hang_up(ConnectionResetError(f"The server answered something else: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.hang_up(ConnectionResetError(f"The connection was lost: {error or 'the server has hung up'}."))

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        if not self._waiting:
            return
        if self._waiting[0].due <= self._loop.time():
            self.hang_up(TimeoutError(f"The server did not answer within {self._answer_seconds:g} s."))
        else:
            self._alarm = self._loop.call_at(self._waiting[0].due, self._look_at_the_clock)


def _closed() -> ConnectionResetError:
    return ConnectionResetError("The line was closed.")


def _to_error(text: str) -> Exception:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


def _hand_out(answer: "asyncio.Future[Any]", value: Any) -> None:
    if answer.done():
        return  # Whoever asked has gone.
    if isinstance(value, Exception):
        answer.set_exception(value)
    else:
        answer.set_result(value)

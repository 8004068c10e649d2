"""What this process holds of streams, for each Redis it speaks with: one loop has one client, and so one of these."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import redis.asyncio

from core.grouping import Grouped
from core.redis import RedisAway, redis_errors
from streams.flusher import Flusher, Source
from streams.live import LiveStream
from streams.tails import Tails

Command: TypeAlias = tuple[Any, ...]

#: Each may bring back megabytes of a log.
COMMANDS_A_TRIP, TRIPS_AT_ONCE = 16, 4

_held: dict[redis.asyncio.Redis, "Here"] = {}


class Here:
    """The streams that are served here, the way to their logs, and those of other processes that are read here."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        #: Of streams that run, or that ended and are not in the log yet.
        self.writers: dict[str, Source] = {}
        self.flusher = Flusher(server)
        self.tails = Tails(server)
        self._server = server
        # Thousands who come back at once neither take every connection of the process, nor wait for each other.
        self._asking: Grouped[Command, Any] = Grouped(
            self._ask_all, largest=COMMANDS_A_TRIP, at_once=TRIPS_AT_ONCE, shared=(RedisAway,)
        )

    def stream(self, stream_id: str) -> LiveStream | None:
        """Return a stream that is served here."""
        writer = self.writers.get(stream_id)
        return writer.stream if writer else None

    async def ask(self, *command: Any) -> Any:
        """Ask the server about a stream, and return its answer. Raises `RedisAway`."""
        answer = await self._asking.do(command)
        if isinstance(answer, Exception):
            raise RedisAway(f"{type(answer).__name__}: {answer}"[:200]) from answer
        return answer

    async def _ask_all(self, commands: Sequence[Command]) -> Sequence[Any]:
        with redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self.flusher.stop()
        await self.tails.stop()
        _held.pop(self._server, None)


def here(server: redis.asyncio.Redis) -> Here:
    """Return what this process holds for a client."""
    if server not in _held:
        _held[server] = Here(server)
    return _held[server]

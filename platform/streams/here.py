"""What this process holds of streams, for each Redis it speaks with: one loop has one client, and so one of these."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import redis.asyncio

from core.group_commit import GroupCommitter
from core.redis import RedisUnavailable, translate_redis_errors
from streams.flusher import FlushSource, LogFlusher
from streams.live import LocalStream
from streams.tails import StreamSubscriptions

RedisCommand: TypeAlias = tuple[Any, ...]

#: Each may bring back megabytes of a log.
MAX_COMMANDS_PER_PIPELINE, MAX_CONCURRENT_PIPELINES = 16, 4

_by_client: dict[redis.asyncio.Redis, "ProcessStreams"] = {}


class ProcessStreams:
    """The streams that are served here, the way to their logs, and those of other processes that are read here."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        #: Of streams that run, or that ended and are not in the log yet.
        self.writers: dict[str, FlushSource] = {}
        self.flusher = LogFlusher(server)
        self.tails = StreamSubscriptions(server)
        self._server = server
        # Thousands who come back at once neither take every connection of the process, nor wait for each other.
        self._batcher: GroupCommitter[RedisCommand, Any] = GroupCommitter(
            self._run_pipeline,
            max_group_size=MAX_COMMANDS_PER_PIPELINE,
            max_concurrent_groups=MAX_CONCURRENT_PIPELINES,
            group_errors=(RedisUnavailable,),
        )

    def stream(self, stream_id: str) -> LocalStream | None:
        """Return a stream that is served here."""
        writer = self.writers.get(stream_id)
        return writer.stream if writer else None

    async def ask(self, *command: Any) -> Any:
        """Ask the server about a stream, and return its answer. Raises `RedisUnavailable`."""
        answer = await self._batcher.submit(command)
        if isinstance(answer, Exception):
            raise RedisUnavailable(f"{type(answer).__name__}: {answer}"[:200]) from answer
        return answer

    async def _run_pipeline(self, commands: Sequence[RedisCommand]) -> Sequence[Any]:
        with translate_redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self.flusher.stop()
        await self.tails.stop()
        _by_client.pop(self._server, None)


def process_streams(server: redis.asyncio.Redis) -> ProcessStreams:
    """Return what this process holds for a client."""
    if server not in _by_client:
        _by_client[server] = ProcessStreams(server)
    return _by_client[server]

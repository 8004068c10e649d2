"""The sign of life of a process: who reads its streams elsewhere sees within seconds that it is gone."""

import asyncio
from contextlib import suppress
from typing import Any

import redis.asyncio
import structlog

from core.ids import new_uuid, to_public
from core.redis import RedisUnavailable, translate_redis_errors
from streams.background import cancel_and_wait
from streams.entries import HEARTBEAT_SECONDS, HEARTBEAT_TTL_SECONDS, cancel_key, heartbeat_key, process_report_key
from streams.here import process_streams
from streams.running import StreamReporter

log = structlog.get_logger(__name__)


class ProcessHeartbeat:
    """This process's id, and the key that is there as long as it lives: `nd:process:<id>`."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self.id = to_public("process", new_uuid())
        self._server = server
        self._streams = process_streams(server)
        self._task: asyncio.Task[None] | None = None
        self._was_sent = False
        self._reporter = StreamReporter(self.id, self._streams)

    async def start(self) -> None:
        """Make the mark, and keep it. When Redis is away the mark follows as soon as it is back."""
        await self._beat()
        self._task = asyncio.get_running_loop().create_task(self._heartbeat_loop(), name="streams-heartbeat")

    async def stop(self) -> None:
        """Take the mark away, and stop all that runs beside it. What has not ended here is orphaned at once."""
        await cancel_and_wait(self._task)
        with suppress(RedisUnavailable), translate_redis_errors():
            await self._server.delete(heartbeat_key(self.id), process_report_key(self.id))
        await self._streams.close()

    async def _heartbeat_loop(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        try:
            before, to_cancel = await self._send_heartbeat()
        except RedisUnavailable:
            # The flusher says it, for it matters where there is something to write.
            return
        if self._was_sent and before is None:
            # Redis was flushed, or away for long, and may have lost more than this.
            log.warning("process_heartbeat_lost", process=self.id, streams=len(self._streams.writers))
            for writer in list(self._streams.writers.values()):
                writer.rewrite_if_lost()
        self._was_sent = True
        for stream_id in to_cancel:
            if stream := self._streams.stream(stream_id.decode()):
                stream.cancel("requested")

    async def _send_heartbeat(self) -> tuple[bytes | None, set[bytes]]:
        """Renew the mark; return what was there before, and which streams are to be canceled."""
        with translate_redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            pipeline.set(heartbeat_key(self.id), b"1", px=HEARTBEAT_TTL_SECONDS * 1000, get=True)
            pipeline.smembers(cancel_key(self.id))
            self._reporter.add_to(pipeline)
            before, to_cancel, *_ = await pipeline.execute()
        return before, to_cancel

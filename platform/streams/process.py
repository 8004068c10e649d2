"""The sign of life of a process: who reads its streams elsewhere sees within seconds that it is gone."""

import asyncio
from contextlib import suppress
from typing import Any

import redis.asyncio
import structlog

from core.ids import new_uuid, to_public
from core.redis import RedisAway, redis_errors
from streams.background import stop_task
from streams.entries import BEAT_SECONDS, EXPIRY_SECONDS, cancel_key, process_key, running_key
from streams.here import here
from streams.running import Telling

log = structlog.get_logger(__name__)


class ProcessMark:
    """This process's id, and the key that is there as long as it lives: `nd:process:<id>`."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self.id = to_public("process", new_uuid())
        self._server = server
        self._here = here(server)
        self._task: asyncio.Task[None] | None = None
        self._is_marked = False
        self._told = Telling(self.id, self._here)

    async def start(self) -> None:
        """Make the mark, and keep it. When Redis is away the mark follows as soon as it is back."""
        await self._beat()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="streams-process-mark")

    async def stop(self) -> None:
        """Take the mark away, and stop all that runs beside it. What has not ended here is orphaned at once."""
        await stop_task(self._task)
        with suppress(RedisAway), redis_errors():
            await self._server.delete(process_key(self.id), running_key(self.id))
        await self._here.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        try:
            before, to_cancel = await self._exchange()
        except RedisAway:
            # The flusher says it, for it matters where there is something to write.
            return
        if self._is_marked and before is None:
            # Redis was flushed, or away for long, and may have lost more than this.
            log.warning("process_mark_lost", process=self.id, streams=len(self._here.writers))
            for writer in list(self._here.writers.values()):
                writer.verify()
        self._is_marked = True
        for stream_id in to_cancel:
            if stream := self._here.stream(stream_id.decode()):
                stream.cancel("asked")

    async def _exchange(self) -> tuple[bytes | None, set[bytes]]:
        """Renew the mark; return what was there before, and which streams are to be canceled."""
        with redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            pipeline.set(process_key(self.id), b"1", px=EXPIRY_SECONDS * 1000, get=True)
            pipeline.smembers(cancel_key(self.id))
            self._told.add_to(pipeline)
            before, to_cancel, *_ = await pipeline.execute()
        return before, to_cancel

"""How a process is asked to cancel a stream that it serves: it reads that with its next beat."""

from typing import Any

import redis

from core.redis import translate_redis_errors
from streams.entries import HEARTBEAT_TTL_SECONDS, cancel_key


def queue_cancel(pipeline: Any, process_id: str, stream_id: str) -> None:
    """Add to a pipeline what the process is to read."""
    pipeline.sadd(cancel_key(process_id), stream_id)
    pipeline.expire(cancel_key(process_id), 2 * HEARTBEAT_TTL_SECONDS)


def request_cancel_blocking(server: redis.Redis, process_id: str, stream_id: str) -> None:
    """Ask for it in code that may wait. Raises `RedisAway`."""
    with translate_redis_errors():
        pipeline = server.pipeline(transaction=False)
        queue_cancel(pipeline, process_id, stream_id)
        pipeline.execute()

"""A process that serves one stream, for tests to read and to kill: one event every 5 ms until it reads a line."""

import asyncio
import sys

from core import redis
from streams.entries import StreamEnd
from streams.process import ProcessHeartbeat
from streams.registry import ProcessStreams, StreamSupervisor
from streams.writer import EventLogWriter
from tests.platform.streams.conftest import stream_info

EVENT_INTERVAL_SECONDS = 0.005


def frame(number: int) -> tuple[str, bytes]:
    return "", b"event %d" % number


async def serve(url: str, stream_id: str) -> None:
    server = redis.client(url)
    streams = ProcessStreams(server)
    heartbeat = ProcessHeartbeat(streams)
    await heartbeat.start()
    supervisor = StreamSupervisor(streams, grace_seconds=60, ttl_seconds=60, max_bytes=1024 * 1024)
    stop = asyncio.Event()

    async def run(writer: EventLogWriter) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.append([frame(number)])
            await asyncio.sleep(EVENT_INTERVAL_SECONDS)
        await writer.finish(StreamEnd("done"))

    await supervisor.wait_until_visible(supervisor.start(stream_info(stream_id), run, detached=True))
    print("serving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await supervisor.drain(2)
    await heartbeat.stop()
    await redis.close_clients()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

"""A process that serves one stream, for tests to read from and to kill: an event each 5 ms, until a line comes in."""

import asyncio
import sys

from core import redis
from streams.entries import StreamEnd
from streams.log import EventLogWriter
from streams.process import ProcessHeartbeat
from streams.registry import StreamSupervisor
from tests.platform.streams.conftest import stream_info

EVERY_SECONDS = 0.005


def frame(number: int) -> tuple[str, bytes]:
    return "", b"event %d" % number


async def serve(url: str, stream_id: str) -> None:
    server = redis.client(url)
    mark = ProcessHeartbeat(server)
    await mark.start()
    streams = StreamSupervisor(server, mark, grace_seconds=60, ttl_seconds=60, max_bytes=1024 * 1024)
    stop = asyncio.Event()

    async def run(writer: EventLogWriter) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.append([frame(number)])
            await asyncio.sleep(EVERY_SECONDS)
        await writer.finish(StreamEnd("done"))

    await streams.wait_until_visible(streams.start(stream_info(stream_id), run, detached=True))
    print("serving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await streams.drain(2)
    await mark.stop()
    await redis.close_clients()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

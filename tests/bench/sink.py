"""A site that accepts every webhook unread, because it shares the cores: python -m tests.bench.sink PORT."""

import asyncio
import re
import sys
from typing import cast

import uvloop

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Sink(asyncio.Protocol):
    """Answers a request as soon as all of it has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._come = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self._come += data
        while self._take_one():
            self._transport.write(ANSWER)

    def _take_one(self) -> bool:
        """Consume one complete request from the buffer. False if there is none yet."""
        head, end, _ = self._come.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = len(head) + len(end) + (int(length[1]) if length else 0)
        if not end or len(self._come) < size:
            return False
        self._come = self._come[size:]
        return True


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))

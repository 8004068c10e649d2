"""The TCP connection under a request: what ASGI hides, and faults such as a reset need."""

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection:
    """One client's connection; it knows whether the client is still connected."""

    __slots__ = ("_is_lost", "_transport", "_waiter")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False

    def mark_lost(self) -> None:
        self._is_lost = True
        self._wake()

    @property
    def is_lost(self) -> bool:
        """Whether the client disconnected. The transport knows it slightly before the protocol is notified."""
        return self._is_lost or self._transport.is_closing()

    async def pause(self, seconds: float | None) -> bool:
        """Wait, without end if `seconds` is None. Return True if the client is still connected afterwards."""
        if self._is_lost:
            return False
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._wake) if seconds is not None else None
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
        return not self.is_lost

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def flush(self) -> None:
        """Wait until the written data is passed to the kernel, or the client disconnects."""
        while not self._is_lost:
            await asyncio.sleep(0)
            if self._transport.get_write_buffer_size() == 0:
                return
            await self.pause(0.001)

    async def close(self) -> None:
        """End with FIN: everything written arrives, and then nothing more."""
        self._transport.close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until uvicorn has noticed the end, too: it logs an error if the application returns earlier."""
        await self.pause(None)

    async def reset(self) -> None:
        """End with RST, as a crashed process or a hasty proxy does."""
        if not self.is_lost:
            raw: socket.socket = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self._transport.abort()
        await self.wait_closed()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SimulatorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the connection put into the ASGI scope's state."""

    connection: Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection = Connection(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.mark_lost()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self.connection


def connection_of(scope: dict[str, Any]) -> Connection:
    connection: Connection = scope["state"]["connection"]
    return connection

"""The sites' webhook receiver: verifies every signature, fails where that is planned, and logs everything."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from devstack.ports import HOST, free_port
from devstack.webhook_receiver import verify


@dataclass(frozen=True, slots=True)
class Received:
    """One received webhook."""

    at: float
    event_id: str
    type: str
    #: The public id of the job, empty if it is about none.
    job_id: str
    body_sha256: str
    #: Empty if its signatures are valid.
    refused: str
    #: The response status.
    status: int


class Receiver:
    """`received` is the ledger."""

    def __init__(self, stumbles: Collection[str] = ()) -> None:
        self.received: list[Received] = []
        #: Orders whose first webhook it fails.
        self._stumbles = stumbles
        self._seen: set[str] = set()
        self._secrets: Sequence[str] = ()

    def trust(self, secrets: Sequence[str]) -> None:
        """Accept these secrets."""
        self._secrets = secrets

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        one = await asyncio.to_thread(verify, self._secrets, headers, body)
        data = one.payload.get("data", {}) if isinstance(one.payload, dict) else {}
        stumbles = data.get("metadata", {}).get("order") in self._stumbles and one.id not in self._seen
        self._seen.add(one.id)
        status = 401 if one.reason else 503 if stumbles else 204
        digest = hashlib.sha256(body).hexdigest()
        self.received.append(
            Received(time.time(), one.id, one.type, str(data.get("job_id", "")), digest, one.reason, status)
        )
        return web.Response(status=status)


@contextmanager
def received_by(receiver: Receiver) -> Iterator[tuple[Receiver, str]]:
    """Receive in a thread until the block ends; yield the receiver and its address."""
    port, ready, over = free_port(), threading.Event(), asyncio.Event()

    async def receive() -> None:
        async with receiving(receiver, port):
            ready.set()
            await over.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=lambda: runner.run(receive()), name="receiver")
        thread.start()
        try:
            if not ready.wait(10):
                raise RuntimeError("The receiver does not start.")
            yield receiver, f"http://{HOST}:{port}/"
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join(10)


@asynccontextmanager
async def receiving(receiver: Receiver, port: int) -> AsyncIterator[None]:
    """Receive until the block ends."""
    app = web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()

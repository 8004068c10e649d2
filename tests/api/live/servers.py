"""The live path behind a real server, in a thread of the tests, so that it shares their settings and database."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import uvicorn

from api.asgi import get_application
from api.live.asgi import asgi_application
from live.runtime import close_live_runtime
from tests.polling import wait_for
from tests.ports import own_port

HOST = "127.0.0.1"


@contextmanager
def uvicorn_server() -> Iterator[str]:
    """Serve as in production, and yield the address."""
    port = own_port()
    config = uvicorn.Config(
        asgi_application(get_application()),
        host=HOST,
        port=port,
        loop="uvloop",
        lifespan="on",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    with running(server.run, port) as url:
        yield url
        server.should_exit = True


@contextmanager
def daphne_server() -> Iterator[str]:
    """Serve as Daphne does. Its reactor can be run once in a process."""
    from daphne.server import Server, reactor  # noqa: PLC0415 (its import installs the reactor)

    port = own_port()
    server = Server(
        asgi_application(get_application()),
        endpoints=[f"tcp:port={port}:interface={HOST}"],
        signal_handlers=False,
        verbosity=0,
    )
    with running(server.run, port) as url:
        yield url
        # Daphne does not support lifespan, so it does not close the runtime.
        asyncio.run_coroutine_threadsafe(close_live_runtime(), reactor._asyncioEventloop).result(20)
        reactor.callFromThread(reactor.stop)


@contextmanager
def running(serve: Callable[[], None], port: int) -> Iterator[str]:
    thread = threading.Thread(target=serve, name="server")
    thread.start()
    url = f"http://{HOST}:{port}"
    try:
        wait_for(lambda: _answers(url))
        yield url
    finally:
        thread.join(20)
        assert not thread.is_alive()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz").status_code == 200
    return False

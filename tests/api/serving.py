"""The API behind a real uvicorn, and a proxy to Postgres that can simulate an outage."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
from django.db import connection

from devstack.program import Program, launch, stop
from nightdesk import env
from tests.polling import wait_for
from tests.ports import own_port

ROOT = Path(__file__).resolve().parents[2]
STDERR = 2
#: A port without a listener.
NOBODY = "redis://127.0.0.1:1/0"


@contextmanager
def served(database_url: str, redis_url: str = NOBODY) -> Iterator[str]:
    """Run uvicorn as in production, and yield its URL once it responds."""
    port = own_port()
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DATABASE_WAIT_SECONDS": "1",
        "BODY_READ_TIMEOUT_SECONDS": "1",
        "DEBUG": "false",
        "SECRET_KEY": "a key of the tests, long enough for production",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
    }
    command = (sys.executable, "-m", "uvicorn", "nightdesk.asgi:application", "--port", str(port), "--no-proxy-headers")
    web = Program("web", (*command, "--log-level", "warning"), env.child_environment(environment), ROOT)
    process = launch(web, STDERR)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is None and _answers(url))
        yield url
    finally:
        stop(process, web)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz").status_code == 200
    return False


class Gate:
    """A TCP proxy to Postgres. While it is shut, it cuts connections and refuses new ones."""

    def __init__(self) -> None:
        known = connection.get_connection_params()
        self._behind = (known["host"], int(known["port"]))
        self.port = own_port()
        user = f"{quote(known['user'])}:{quote(known['password'], safe='')}"
        self.url = f"postgresql://{user}@127.0.0.1:{self.port}/{known['dbname']}"
        self._listener: socket.socket | None = None
        self._outer: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._let_in, self._listener)

    def shut(self) -> None:
        for one in (self._listener, *self._outer):
            if one is not None:
                _hang_up(one)
        for thread in self._threads:
            thread.join(10)
        self._listener, self._outer, self._threads = None, [], []

    def _start(self, work: Callable[[socket.socket], None], one: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=[one], daemon=True))
        self._threads[-1].start()

    def _let_in(self, listener: socket.socket) -> None:
        with listener, suppress(OSError):
            while True:
                outer, _ = listener.accept()
                self._outer.append(outer)
                self._start(self._link, outer)

    def _link(self, outer: socket.socket) -> None:
        with outer, socket.create_connection(self._behind) as inner:
            back = threading.Thread(target=_pass_on, args=[inner, outer], daemon=True)
            back.start()
            _pass_on(outer, inner)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _hang_up(source)
    _hang_up(target)


def _hang_up(one: socket.socket) -> None:
    """Shut a socket down, which also wakes threads that wait on it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)

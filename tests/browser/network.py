"""The network between a page and the desk: page servers, and a TCP proxy that can be cut."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.ports import own_port

HOST = "127.0.0.1"
PAGES = Path(__file__).parent / "pages"
#: Closes with a reset, like a lost network.
RESET = struct.pack("ii", 1, 0)
#: The parts of a request that third parties see: its URL and its Referer.
TARGETS = re.compile(rb"^(?:GET|POST|DELETE|OPTIONS) (\S+) HTTP/1\.1\r$", re.MULTILINE)
REFERERS = re.compile(rb"^referer: ([^\r]*)\r$", re.MULTILINE | re.IGNORECASE)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its base calls it so)
        pass


@contextmanager
def page_server() -> Iterator[str]:
    """Serve the folder of pages, and yield their origin."""
    server = ThreadingHTTPServer((HOST, own_port()), partial(Quiet, directory=str(PAGES)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="pages")
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Line:
    """TCP proxy to the desk. While it is cut, it accepts no connection."""

    def __init__(self, desk_port: int) -> None:
        self._desk_port = desk_port
        self._listening = socket.create_server((HOST, own_port()))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._is_cut = False
        self._heard: list[bytearray] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listening.getsockname()[1]}"

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        with self._lock:
            self._is_cut = True
            broken, self._open = self._open, set()
        for each in broken:
            _reset(each)

    def mend(self) -> None:
        self._is_cut = False

    def targets(self) -> list[str]:
        """The requested URLs, in the order of their connections."""
        return [found.decode() for heard in self._heard for found in TARGETS.findall(bytes(heard))]

    def referers(self) -> list[str]:
        return [found.decode() for heard in self._heard for found in REFERERS.findall(bytes(heard))]

    def close(self) -> None:
        """Close everything, and wait for the threads."""
        # Closing alone does not wake a thread in `accept`.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._connect(self._listening.accept()[0])

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                _reset(client)
                return
            desk = socket.create_connection((HOST, self._desk_port))
            self._open |= {client, desk}
        self._heard.append(heard := bytearray())
        self._start(self._carry, client, desk, heard)
        self._start(self._carry, desk, client, None)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="line")
        self._threads.append(thread)
        thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, heard: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if heard is not None:
                    heard += data
                sink.sendall(data)
        # Neither side half-closes here: the end of one direction ends both.
        with self._lock:
            self._open -= {source, sink}
        for each in (source, sink):
            _close(each)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        # Wakes a thread in `recv`, which closing does not.
        connection.shutdown(socket.SHUT_RD)
    connection.close()


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

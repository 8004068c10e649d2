"""TCP ports of the loopback address: which are free, and holding the ones chosen."""

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack import private_files
from devstack.errors import InvalidEnvironment, PortTaken

HOST = "127.0.0.1"
DEFAULT_WEB_PORT = 8000


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Say whether a server could listen on the port."""
    with socket.socket() as probe:
        # As servers do: connections that linger after a stopped server do not make its port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise InvalidEnvironment(f"Port {port} is reserved by the system; choose one above 1023.") from error
        except OSError:
            return False
        return True


def require_free(port: int) -> None:
    """Raise `PortTaken` unless a server could listen on the port."""
    if not is_free(port):
        raise PortTaken(port, "Stop that program, or choose another port.")


def parse_port(text: str) -> int:
    """Return the number of a port given by a person."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise InvalidEnvironment(f"PORT must be a number from 1 to 65535, got {text!r}.")
    return int(text)


class PortReservations:
    """Chosen ports, held while this object is open, so that two stacks which start together never choose the same.

    The sign is a UDP socket of the same number: every copy of Nightdesk sees it, it goes away with its process
    however that ends, and it is not in the way of the server that will listen on the TCP port.
    """

    def __init__(self) -> None:
        self._signs: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for sign in self._signs:
            sign.close()

    def reserve(self, port: int) -> bool:
        """Hold the port; False if it is taken, or held by another stack."""
        if not is_free(port):
            return False
        sign = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sign.bind((HOST, port))
        except OSError:
            sign.close()
            return False
        self._signs.append(sign)
        return True

    def choose(self, candidates: Iterable[int]) -> int:
        """Hold the first candidate that is free, or any free port, and return it."""
        for port in candidates:
            if self.reserve(port):
                return port
        return self.choose(free_port() for _ in range(100))


def choose_web_port(ports: PortReservations, asked: int | None) -> int:
    """Hold the port asked for, or else the first free one from the default on. Raises `PortTaken`."""
    if asked is None:
        return ports.choose(range(DEFAULT_WEB_PORT, DEFAULT_WEB_PORT + 100))
    if not ports.reserve(asked):
        raise PortTaken(asked, "Stop that program, or give another PORT.")
    return asked


def choose_saved_ports(ports: PortReservations, names: Iterable[str], memory: Path) -> dict[str, int]:
    """Hold a port for each name, the same as last time where it is still free, and remember them."""
    before = _read_saved(memory)
    chosen = {name: ports.choose([before[name]] if name in before else []) for name in names}
    private_files.write_json(memory, before | chosen)
    return chosen


def _read_saved(memory: Path) -> dict[str, int]:
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if isinstance(port, int) and 0 < port < 65536}

"""TCP ports of the loopback address: finds free ones and reserves them."""

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
    """Return a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        # As servers do: lingering connections of a stopped server do not occupy its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise InvalidEnvironment(f"Port {port} is reserved by the system. Choose one above 1023.") from error
        except OSError:
            return False
        return True


def require_free(port: int) -> None:
    """Raise `PortTaken` unless a server could listen on the port."""
    if not is_free(port):
        raise PortTaken(port, "Stop that program, or choose another port.")


def parse_port(text: str) -> int:
    """Parse a port that the user set. Raises `InvalidEnvironment`."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise InvalidEnvironment(f"PORT must be a number from 1 to 65535, got {text!r}.")
    return int(text)


class PortReservations:
    """Reserved ports, held while this object is open, so that two stacks that start together never choose the same.

    A reservation is a bound UDP socket with the same number: every copy of Nightdesk sees it, the kernel releases it
    when the process ends, and it does not block the server that will listen on the TCP port.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for reserved in self._sockets:
            reserved.close()

    def reserve(self, port: int) -> bool:
        """Reserve the port; False if it is in use, or reserved by another stack."""
        if not is_free(port):
            return False
        reserved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reserved.bind((HOST, port))
        except OSError:
            reserved.close()
            return False
        self._sockets.append(reserved)
        return True

    def choose(self, candidates: Iterable[int]) -> int:
        """Reserve the first candidate that is free, or else any free port, and return it."""
        for port in candidates:
            if self.reserve(port):
                return port
        return self.choose(free_port() for _ in range(100))


def choose_web_port(ports: PortReservations, requested: int | None) -> int:
    """Reserve the requested port, or else the first free one from the default upwards. Raises `PortTaken`."""
    if requested is None:
        return ports.choose(range(DEFAULT_WEB_PORT, DEFAULT_WEB_PORT + 100))
    if not ports.reserve(requested):
        raise PortTaken(requested, "Stop that program, or set another PORT.")
    return requested


def choose_saved_ports(ports: PortReservations, names: Iterable[str], file: Path) -> dict[str, int]:
    """Reserve a port for each name, the same as last time if it is free, and save them in the file."""
    before = _read_saved(file)
    chosen = {name: ports.choose([before[name]] if name in before else []) for name in names}
    private_files.write_json(file, before | chosen)
    return chosen


def _read_saved(file: Path) -> dict[str, int]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if isinstance(port, int) and 0 < port < 65536}

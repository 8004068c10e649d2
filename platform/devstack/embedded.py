"""A database server from a wheel, run as a child process: start it, wait until it is ready, stop it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import ServerFailed
from devstack.ports import require_free
from devstack.program import Program, launch, stop

READY_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A server that can be started: its data folder is prepared, and no other process uses it."""

    program: Program
    port: int
    #: URL of the server, with its password.
    url: str
    #: Whether the server responds to a query.
    is_ready: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server."""

    url: str
    port: int
    pid: int


@contextmanager
def run_server(embedded: EmbeddedServer, log: Path) -> Iterator[RunningServer]:
    """Run the server until the block ends, with its output appended to `log`.

    Enter the block from a thread that outlives it: the kernel stops the server when the starting thread ends.
    """
    require_free(embedded.port)
    with log.open("ab") as output:
        process = launch(embedded.program, output)
    try:
        _wait_until_ready(embedded, lambda: process.poll() is not None, log)
        yield RunningServer(embedded.url, embedded.port, process.pid)
    finally:
        stop(process, embedded.program)


def _wait_until_ready(embedded: EmbeddedServer, has_ended: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not embedded.is_ready():
        if has_ended():
            require_free(embedded.port)  # another program may have taken the port meanwhile
            raise ServerFailed(f"{embedded.program.name} exited during start-up. Its last lines:\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"{embedded.program.name} does not respond. Its last lines:\n{_last_lines(log)}")
        time.sleep(0.02)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])

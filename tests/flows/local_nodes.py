"""pytest-celery's nodes, backed by real local processes instead of containers."""

import os
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer
from pytest_celery.api.container import CeleryTestContainer

from devstack.embedded import EmbeddedServer
from devstack.program import Program, launch, stop
from tests.polling import wait_for


class LocalProcess:
    """The slice of a Docker container that pytest-celery touches, for a process in a group of its own.

    It ends with the tests, however they end.
    """

    def __init__(self, program: Program, logs: Path) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{program.name}-{self.id[:8]}"
        self.attrs: dict[str, Any] = {"Config": {"Hostname": "127.0.0.1"}}
        self.log_path = logs / f"{self.name}.log"
        self._program = program
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log_path.open("ab") as log:
            return launch(self._program, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def reload(self) -> None: ...

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        os.killpg(self._process.pid, number)

    def kill(self, signal: str | int = "SIGKILL") -> None:
        number = getattr(signal_numbers, signal) if isinstance(signal, str) else signal
        self.signal(number)
        if number == signal_numbers.SIGKILL:
            self._process.wait(10)

    def restart(self, timeout: int = 10) -> None:
        if self.status == "running":
            self._process.terminate()
            self._process.wait(timeout)
        self._process = self._start()

    def logs(self) -> bytes:
        return self.log_path.read_bytes()

    def destroy(self) -> None:
        """Stop it with SIGTERM, then with SIGKILL."""
        stop(self._process, self._program)


signal_numbers = signal.Signals


class _Local(ABC):
    """Replaces what needs Docker in pytest-celery's containers."""

    _container: LocalProcess

    def ready(self) -> bool:
        def is_ready() -> bool:
            if self._container.status == "exited":
                raise RuntimeError(f"{self._container.name} ended at once:\n{self._container.logs().decode()}")
            return self.is_up()

        return wait_for(is_ready, seconds=90, every=0.1)

    @abstractmethod
    def is_up(self) -> bool: ...

    def freeze(self) -> None:
        self._container.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._container.signal(signal.SIGCONT)

    def teardown(self) -> None:
        self._container.destroy()


class LocalBroker(_Local, CeleryTestContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A server that carries Celery's messages."""

    def __init__(self, process: LocalProcess, embedded: EmbeddedServer) -> None:
        super().__init__(process)
        self._embedded = embedded

    @property
    def url(self) -> str:
        return self._embedded.url

    @property
    def celeryconfig(self) -> dict[str, str]:
        return {"url": self.url, "host_url": self.url}

    def is_up(self) -> bool:
        return self._embedded.is_ready()

    @property
    def is_running(self) -> bool:
        return self._container.status == "running"


class LocalWorker(_Local, CeleryWorkerContainer):  # type: ignore[misc]
    """A Nightdesk worker; it is ready once it has a lease."""

    def is_up(self) -> bool:
        return b"lease_acquired" in self._container.logs()

    @property
    def pid(self) -> int:
        return self._container.pid

    @property
    def exit_code(self) -> int | None:
        return self._container.exit_code

    def terminate(self) -> None:
        self._container.signal(signal.SIGTERM)

    def teardown(self) -> None:
        """Kill it: a graceful shutdown takes seconds, and has its own flow."""
        if self._container.status == "running":
            self._container.kill()

"""pytest-celery's nodes, backed by real local processes instead of containers."""

import os
import signal
import subprocess
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from nightdesk.local.embedded import Embedded
from tests.polling import wait_for


class LocalProcess:
    """The slice of a Docker container that pytest-celery touches, for a process in a group of its own."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{name}-{self.id[:8]}"
        self.attrs: dict[str, Any] = {"Config": {"Hostname": "127.0.0.1"}}
        self.log_path = folder / f"{self.name}.log"
        self._argv, self._folder, self._environment = argv, folder, environment
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._argv,
                cwd=Path(__file__).parents[2],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

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
        """End it politely, then not."""
        if self.status == "exited":
            return
        self._process.terminate()
        ended = threading.Timer(35, lambda: self.signal(signal.SIGKILL))
        ended.start()
        self._process.wait(40)
        ended.cancel()


signal_numbers = signal.Signals


class _Local(ABC):
    """Replaces what needs Docker in pytest-celery's containers."""

    _container: LocalProcess

    def ready(self) -> bool:
        def is_ready() -> bool:
            if self._container.status == "exited":
                raise RuntimeError(f"{self._container.name} ended at once:\n{self._container.logs().decode()}")
            return self.is_up()

        return wait_for(is_ready, seconds=60)

    @abstractmethod
    def is_up(self) -> bool: ...

    def teardown(self) -> None:
        self._container.destroy()


class LocalBroker(_Local, RedisContainer):  # type: ignore[misc] # pytest-celery ships no types
    """Valkey as Celery's broker."""

    def __init__(self, process: LocalProcess, embedded: Embedded) -> None:
        super().__init__(process)
        self._embedded = embedded

    @property
    def url(self) -> str:
        return self._embedded.url

    host_url = url

    def is_up(self) -> bool:
        return self._embedded.is_ready()


class LocalWorker(_Local, CeleryWorkerContainer):  # type: ignore[misc]
    """A Nightdesk worker; it is ready once it has a lease."""

    def is_up(self) -> bool:
        return b"lease_taken" in self._container.logs()

    @property
    def pid(self) -> int:
        return self._container.pid

    @property
    def exit_code(self) -> int | None:
        return self._container.exit_code

    def freeze(self) -> None:
        self._container.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._container.signal(signal.SIGCONT)

    def terminate(self) -> None:
        self._container.signal(signal.SIGTERM)

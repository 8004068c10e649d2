import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.orphans import process_identity, record_processes, servers_in, terminate_recorded, terminate_servers_in
from tests.polling import wait_for


@contextmanager
def sleeper(folder: Path, name: str = "a-server") -> Iterator[subprocess.Popen[bytes]]:
    """A process with that executable name and working folder."""
    executable = folder / name
    shutil.copy("/bin/sleep", executable)
    process = subprocess.Popen([executable, "60"], cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def test_a_server_of_the_folder_is_found_and_ended(folder: Path) -> None:
    with sleeper(folder) as process:
        wait_for(lambda: list(servers_in(folder, "a-server")) == [process.pid])

        terminate_servers_in(folder, "a-server", signal.SIGTERM)

        assert process.wait(1) == -signal.SIGTERM


def test_the_server_of_another_folder_is_not_ended(folder: Path, tmp_path: Path) -> None:
    another = tmp_path / "another"
    another.mkdir()
    with sleeper(another) as process:
        wait_for(lambda: list(servers_in(another, "a-server")) == [process.pid])

        terminate_servers_in(folder, "a-server", signal.SIGTERM)

        assert process.poll() is None


def test_another_program_in_the_folder_is_not_ended(folder: Path) -> None:
    with sleeper(folder, "a-shell") as process:
        wait_for(lambda: list(servers_in(folder, "a-shell")) == [process.pid])

        terminate_servers_in(folder, "a-server", signal.SIGTERM)

        assert process.poll() is None


def test_a_server_is_recognized_after_its_program_was_replaced(folder: Path) -> None:
    with sleeper(folder) as process:
        wait_for(lambda: list(servers_in(folder, "a-server")) == [process.pid])
        (folder / "a-server").unlink()

        assert list(servers_in(folder, "a-server")) == [process.pid]


def test_recorded_processes_are_ended_by_the_next_start(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        record_processes({"web": process.pid}, tmp_path / "processes.json")

        assert terminate_recorded(tmp_path / "processes.json") == ["web"]

        assert process.wait(1) == -signal.SIGTERM


def test_a_later_process_with_the_same_pid_is_not_ended(tmp_path: Path) -> None:
    memory = tmp_path / "processes.json"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        record_processes({"web": process.pid}, memory)
        born = process_identity(process.pid)
        assert born is not None
        memory.write_text(memory.read_text().replace(born, "before the power cut"))

        assert terminate_recorded(memory) == []

        assert process.poll() is None
        process.kill()


def test_recorded_processes_that_ended_are_ignored(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        record_processes({"web": process.pid}, tmp_path / "processes.json")

    assert terminate_recorded(tmp_path / "processes.json") == []


@pytest.mark.parametrize("rubbish", ["", "[]", "{", '{"web": 1}', '{"web": {"pid": "x", "birth": "y"}}'])
def test_an_invalid_record_is_ignored(tmp_path: Path, rubbish: str) -> None:
    (tmp_path / "processes.json").write_text(rubbish)

    assert terminate_recorded(tmp_path / "processes.json") == []


def test_a_missing_process_has_no_identity() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    assert process_identity(process.pid) is None

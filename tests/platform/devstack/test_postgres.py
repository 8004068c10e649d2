import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from devstack.embedded import RunningServer, run_server
from devstack.errors import PortTaken, ServerFailed
from devstack.orphans import servers_in
from devstack.ports import HOST, free_port
from devstack.postgres import postgres_server, prepare_postgres
from devstack.postgres_data import EXECUTABLE, place_cluster, remove_cluster, unix_user_for
from devstack.program import Program, launch, stop
from tests.polling import wait_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres") / "My projects é"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with postgres_server(folder, free_port(), durable=False) as server:
        yield server


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder that several servers use, one after the other."""
    with _without_trace(tmp_path):
        yield tmp_path


# To make a cluster takes a second of processor time. So tests that are not about that share one.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a cluster in it, and no server. A test leaves it as it was."""
    folder = tmp_path_factory.mktemp("made")
    with _without_trace(folder):
        prepare_postgres(folder, free_port(), durable=False)
        yield folder


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder whose servers write durably."""
    folder = tmp_path_factory.mktemp("lasting")
    with _without_trace(folder):
        yield folder


@contextmanager
def _without_trace(folder: Path) -> Iterator[None]:
    yield
    # What root put elsewhere does not go away with the temporary folder.
    remove_cluster(folder.resolve())


@contextmanager
def kept(data_dir: Path) -> Iterator[RunningServer]:
    """A server with data that survives a restart, but fast settings."""
    with run_server(prepare_postgres(data_dir, free_port(), durable=False), data_dir / "server.log") as server:
        yield server


def ask(server: RunningServer, question: str) -> object:
    """Return the first value of the last statement's result, if it has one."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        *_, answer = connection.execute(question.encode()).results()
        row = answer.fetchone() if answer.description else None
        return row[0] if row else None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("server_encoding", "UTF8"),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        ("password_encryption", "scram-sha-256"),
        ("log_min_error_statement", "panic"),
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
    ],
)
def test_postgres_runs_with_our_settings(server: RunningServer, setting: str, value: str) -> None:
    assert ask(server, f"SHOW {setting}") == value


def test_postgres_18_has_our_database_and_pgvector(server: RunningServer) -> None:
    assert str(ask(server, "SHOW server_version")).startswith("18.")
    assert ask(server, "SELECT current_database()") == "nightdesk"
    assert ask(server, "SELECT name FROM pg_available_extensions WHERE name = 'vector'") == "vector"


def test_text_sorting_and_case_do_not_depend_on_the_machine(server: RunningServer) -> None:
    assert ask(server, "SELECT string_agg(t, '' ORDER BY t) FROM unnest(array['b', 'é', 'a', 'B']) t") == "Babé"
    assert ask(server, "SELECT upper('é')") == "É"


def test_a_wrong_password_is_refused(server: RunningServer) -> None:
    wrong = server.url.replace("nightdesk:", "nightdesk:x", 1)

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_a_data_folder_with_spaces_works(server: RunningServer, folder: Path) -> None:
    assert " " in str(folder)
    assert server.pid in list(servers_in((folder / "cluster").resolve(), EXECUTABLE))


def test_row_values_are_not_logged(server: RunningServer, folder: Path) -> None:
    ask(server, "CREATE TABLE note (body text PRIMARY KEY); INSERT INTO note VALUES ('a secret')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(server, "INSERT INTO note VALUES ('a secret')")

    # It is written by another process, which may still be about to.
    log = wait_for(lambda: text if "duplicate key" in (text := (folder / "server.log").read_text()) else None)
    assert "a secret" not in log


def test_durable_data_and_password_survive_a_restart(lasting: Path) -> None:
    port = free_port()
    with postgres_server(lasting, port) as server:
        ask(server, "CREATE TABLE kept AS SELECT 1 AS one")
        assert ask(server, "SHOW fsync") == "on"
        url = server.url

    with postgres_server(lasting, port) as server:
        assert ask(server, "SELECT one FROM kept") == 1
        assert server.url == url


def test_a_killed_server_recovers_committed_data(lasting: Path) -> None:
    with postgres_server(lasting, free_port()) as server:
        ask(server, "CREATE TABLE saved AS SELECT 1 AS one")
        os.kill(server.pid, signal.SIGKILL)

    with postgres_server(lasting, free_port()) as server:
        assert ask(server, "SELECT one FROM saved") == 1


def test_the_password_is_in_a_private_file_and_on_no_command_line(data_dir: Path) -> None:
    embedded = prepare_postgres(data_dir, free_port(), durable=False)
    password = (data_dir / "password").read_text()

    assert stat.S_IMODE((data_dir / "password").stat().st_mode) == 0o600
    assert f":{password}@" in embedded.url
    assert not any(password in argument for argument in embedded.program.argv)
    assert sorted(path.name for path in data_dir.iterdir()) == ["cluster", "password"]


def test_a_short_lived_server_leaves_no_process_and_no_data(tmp_path: Path) -> None:
    with postgres_server(tmp_path, free_port(), durable=False):
        cluster = (tmp_path / "cluster").resolve()
        assert list(servers_in(cluster, EXECUTABLE))

    assert not list(servers_in(cluster, EXECUTABLE))
    assert not cluster.exists()


def test_an_orphan_server_is_ended_and_its_data_kept(made: Path) -> None:
    left_behind, program = _start_and_forget(made)

    with kept(made) as server:
        assert left_behind.wait(1) == 0
        assert ask(server, "SELECT 1") == 1
        assert server.pid in list(servers_in((made / "cluster").resolve(), EXECUTABLE))

    stop(left_behind, program)


def test_a_stale_lock_with_the_pid_of_another_program_is_removed(made: Path) -> None:
    with kept(made) as server:
        lock = (made / "cluster").resolve() / "postmaster.pid"
        text = lock.read_text()
        # Of the account that PostgreSQL runs as, or it would see by itself that the lock is stale.
        bystander = _bystander(made)
    lock.write_text(text.replace(str(server.pid), str(bystander.pid), 1))

    with kept(made) as server:
        assert ask(server, "SELECT 1") == 1
    assert bystander.poll() is None

    bystander.kill()
    bystander.wait()


def test_an_interrupted_first_start_leaves_no_partial_data(data_dir: Path) -> None:
    cluster = place_cluster(data_dir, unix_user_for(data_dir / "cluster"), short_lived=True)
    draft = cluster.with_name("cluster.new")
    draft.mkdir()
    (draft / "PG_VERSION").write_text("18")

    with kept(data_dir) as server:
        assert ask(server, "SELECT 1") == 1


def test_data_of_another_version_is_an_error_and_unchanged(made: Path) -> None:
    with (
        _written(made / "cluster" / "PG_VERSION", "16\n"),
        pytest.raises(ServerFailed, match=r"of PostgreSQL 16, but the server is postgres \(PostgreSQL\) 18"),
    ):
        prepare_postgres(made, free_port(), durable=False)


def test_a_missing_password_file_is_reported_with_its_path(made: Path) -> None:
    password = (made / "password").rename(made / "password.moved")
    try:
        with pytest.raises(ServerFailed, match=f"cannot be read from {made}/password"):
            prepare_postgres(made, free_port(), durable=False)
    finally:
        password.rename(made / "password")


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)), postgres_server(tmp_path, port, durable=False):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_postgres_ends_when_its_parent_is_killed(made: Path) -> None:
    script = f"""
from pathlib import Path
from devstack.postgres import postgres_server
with postgres_server(Path({str(made)!r}), {free_port()}, durable=False):
    print("up", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        cluster = (made / "cluster").resolve()
        assert list(servers_in(cluster, EXECUTABLE))
        parent.kill()

    wait_for(lambda: not list(servers_in(cluster, EXECUTABLE)))


@contextmanager
def _written(path: Path, text: str) -> Iterator[None]:
    """Write another text into the file, until the block ends."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def _start_and_forget(data_dir: Path) -> tuple[subprocess.Popen[bytes], Program]:
    embedded = prepare_postgres(data_dir, free_port(), durable=False)
    with (data_dir / "server.log").open("wb") as output:
        process = launch(embedded.program, output)
    wait_for(embedded.is_ready)
    return process, embedded.program


def _bystander(data_dir: Path) -> subprocess.Popen[bytes]:
    owner = (data_dir / "cluster").stat().st_uid
    return subprocess.Popen(["/bin/sleep", "60"], user=owner if os.geteuid() == 0 else None)

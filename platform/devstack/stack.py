"""Starts a whole desk on one machine: servers, simulator, webhook receiver, migrations, web and worker, in order."""

import asyncio
import fcntl
import hashlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack import orphans, private_files
from devstack.card import Card, SeededSite, make_card, parse_seeded
from devstack.embedded import EmbeddedServer
from devstack.errors import AlreadyRunning, InvalidEnvironment, ProgramFailed, ServerFailed
from devstack.options import StackOptions, base_url, load_or_create_secrets, shared_variables, stack_environment
from devstack.ports import HOST, PortReservations, choose_saved_ports, choose_web_port
from devstack.postgres import prepare_postgres
from devstack.program import Program
from devstack.supervisor import Supervisor
from devstack.valkey import prepare_valkey

ROOT = Path(__file__).resolve().parents[2]

WEB = (
    *("-m", "uvicorn", "nightdesk.asgi:application", "--host", HOST, "--workers", "1"),
    *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--no-proxy-headers", "--log-level", "warning"),
    *("--timeout-graceful-shutdown", "20"),
)
WORKER = (
    # Celery would print nine lines of warning when it runs as root.
    *("-W", "ignore:You're running the worker with superuser privileges"),
    *("-m", "celery", "-q", "-A", "nightdesk", "worker", "-P", "threads", "-c", "2"),
)
WEB_GRACE_SECONDS = 25.0
WORKER_GRACE_SECONDS = 30.0

#: Names of all programs whose lines are printed.
PROGRAM_NAMES = ("nightdesk", "postgres", "valkey", "simulator", "receiver", "prepare", "web", "worker")
RECORDED_PROGRAMS = ("simulator", "receiver", "web", "worker")

READY_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class StackPlan:
    """Folder, ports and options of a stack."""

    folder: Path
    web_port: int
    #: Of postgres, valkey, simulator and receiver.
    ports: Mapping[str, int]
    external_servers: bool
    #: Whether the data survives a power cut.
    durable: bool
    #: Whether the demo site has an endpoint at the receiver from the start.
    receives: bool

    @property
    def receiver_url(self) -> str:
        return base_url(self.ports["receiver"]) + "/"

    @property
    def receiver_secrets(self) -> Path:
        """The file with the webhook secrets that the receiver verifies with."""
        return self.folder / "receiver-secrets.json"


def process_recorder(folder: Path) -> Callable[[Mapping[str, int]], None]:
    """Return a function that records the processes which the next start must end if this one is killed.

    Servers are not recorded: they are found by their data folders, and stop at other signals.
    """
    file = folder / "processes.json"
    return lambda pids: orphans.record_processes(
        {name: pid for name, pid in pids.items() if name in RECORDED_PROGRAMS}, file
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the data folder for one stack. Raises `AlreadyRunning` if another stack holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise InvalidEnvironment(f"{folder} belongs to another user. Start as that user, or remove it.") from error
    try:
        _lock(lock, folder)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, folder: Path) -> None:
    try:
        # The kernel releases it when this process ends, even if it is killed.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AlreadyRunning(folder) from error


def make_plan(
    folder: Path, options: StackOptions, ports: PortReservations, *, durable: bool = True, receives: bool = True
) -> StackPlan:
    """Choose and reserve the ports. Raises `PortTaken` if the requested one is in use."""
    names = ("simulator", "receiver") if options.external_servers else ("postgres", "valkey", "simulator", "receiver")
    web_port = choose_web_port(ports, options.port)
    remembered = choose_saved_ports(ports, names, folder / "ports.json")
    return StackPlan(folder, web_port, remembered, options.external_servers, durable, receives)


async def start_stack(supervisor: Supervisor, plan: StackPlan, inherited: Mapping[str, str]) -> Card:
    """Start all programs, wait until the desk is ready, and return its card."""
    ended = await asyncio.to_thread(orphans.terminate_recorded, plan.folder / "processes.json")
    if ended:
        supervisor.say(f"ended processes of an earlier start: {', '.join(ended)}.")
    servers = [] if plan.external_servers else await asyncio.to_thread(_prepare_servers, plan)
    environment = _environment(plan, servers, inherited)
    private_files.write_json(plan.folder / "environment.json", shared_variables(environment))
    for server in servers:
        supervisor.start(server.program)
    supervisor.start(_simulator(plan, environment), _receiver(plan, environment))
    for server in servers:
        await _wait_until(server.is_ready, f"{server.program.name} does not respond.")
    # If the tables are known to be up to date, web and worker start while the database is prepared: that takes half
    # as long.
    schema_file, schema = plan.folder / "schema", schema_digest()
    is_migrated = not plan.external_servers and schema_file.exists() and schema_file.read_text() == schema
    if is_migrated:
        supervisor.start(_web(plan, environment), _worker(environment))
    seeded = await _prepare_database(supervisor, plan, environment)
    if not is_migrated:
        private_files.write_private(schema_file, schema)
        supervisor.start(_web(plan, environment), _worker(environment))
    private_files.write_private(plan.receiver_secrets, json.dumps([seeded.webhook_secret]))
    await _wait_until(lambda: _is_ready(plan.web_port), "The web server did not become ready.")
    return make_card(
        seeded,
        base_url=base_url(plan.web_port),
        simulator_url=environment["SIMULATOR_URL"],
        receiver_url=plan.receiver_url,
        database_url=environment.get("DATABASE_URL"),
        redis_url=environment.get("REDIS_URL"),
    )


def schema_digest() -> str:
    """Return a hash of the migrations of this release: the names of our own, and the versions of its libraries."""
    rooms = ("platform", "jobs", "webhooks")
    ours = sorted(path.relative_to(ROOT) for room in rooms for path in (ROOT / room).glob("**/migrations/[0-9]*.py"))
    requirements = (ROOT / "requirements" / "base.txt").read_bytes()
    return hashlib.sha256("\n".join(map(str, ours)).encode() + requirements).hexdigest()


def _prepare_servers(plan: StackPlan) -> list[EmbeddedServer]:
    return [
        prepare_postgres(plan.folder / "postgres", plan.ports["postgres"], durable=plan.durable),
        prepare_valkey(plan.folder / "valkey", plan.ports["valkey"], durable=plan.durable),
    ]


def _environment(plan: StackPlan, servers: list[EmbeddedServer], inherited: Mapping[str, str]) -> dict[str, str]:
    facts = {
        **dict(zip(("DATABASE_URL", "REDIS_URL"), (server.url for server in servers), strict=False)),
        "BASE_URL": base_url(plan.web_port),
        "SIMULATOR_URL": base_url(plan.ports["simulator"]),
        "DJANGO_SETTINGS_MODULE": "nightdesk.settings",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "platform"))),
        "PYTHONUNBUFFERED": "1",
    }
    return stack_environment(inherited, load_or_create_secrets(plan.folder / "secrets.json"), facts)


# The programs


def _simulator(plan: StackPlan, environment: Mapping[str, str]) -> Program:
    journal = plan.folder / "simulator-journal.jsonl"
    port = str(plan.ports["simulator"])
    return _program("simulator", environment, "-m", "simulator", "--port", port, "--journal", str(journal))


def _receiver(plan: StackPlan, environment: Mapping[str, str]) -> Program:
    port = str(plan.ports["receiver"])
    secrets = str(plan.receiver_secrets)
    return _program("receiver", environment, "-m", "devstack", "receiver", port, secrets)


def _web(plan: StackPlan, environment: Mapping[str, str]) -> Program:
    return _program("web", environment, *WEB, "--port", str(plan.web_port), grace_seconds=WEB_GRACE_SECONDS)


def _worker(environment: Mapping[str, str]) -> Program:
    return _program("worker", environment, *WORKER, grace_seconds=WORKER_GRACE_SECONDS)


def _prepare_program(plan: StackPlan, environment: Mapping[str, str]) -> Program:
    receiver = ("--receiver-url", plan.receiver_url) if plan.receives else ()
    # At the first start the disk is busy, and no user waits for a response.
    patient = {**environment, "DATABASE_WAIT_SECONDS": "30"}
    return _program("prepare", patient, "-m", "devstack.prepare", *receiver)


def _program(name: str, environment: Mapping[str, str], *arguments: str, grace_seconds: float = 10) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, *arguments),
        environment=environment,
        folder=ROOT,
        grace_seconds=grace_seconds,
    )


# Steps


async def _prepare_database(supervisor: Supervisor, plan: StackPlan, environment: Mapping[str, str]) -> SeededSite:
    printed = await supervisor.capture(_prepare_program(plan, environment))
    try:
        return parse_seeded(printed)
    except ValueError as error:
        raise ProgramFailed(
            f"The output of devstack.prepare is not a demo site: {error}. See its lines above."
        ) from error


async def _wait_until(is_true: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not await asyncio.to_thread(is_true):
        if time.monotonic() > deadline:
            raise ServerFailed(f"{problem} See its lines above.")
        await asyncio.sleep(POLL_SECONDS)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        # `degraded` would mean that no worker is live yet, so jobs would wait.
        return bool(json.load(connection.getresponse())["status"] == "ok")
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()

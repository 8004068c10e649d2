"""The desk of a campaign: real servers and processes with their real command lines; each can be killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis

from core.crash import CrashAt
from devstack.embedded import EmbeddedServer
from devstack.options import base_url, load_or_create_secrets, stack_environment, system_variables
from devstack.ports import free_port
from devstack.postgres import prepare_postgres
from devstack.postgres_data import remove_cluster
from devstack.program import Program, launch, send, stop
from devstack.stack import ROOT, WEB, WORKER
from devstack.valkey import prepare_valkey
from nightdesk import env
from tests.chaos.plan import Plan, crash_variables
from tests.polling import wait_for
from tests.simulator_process import start_simulator

#: As in production, with shorter delays so that a campaign ends.
SETTINGS = {
    "DEBUG": "false",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "INFO",
    "JOB_SLOTS": "60",
    "JOB_RETRY_BASE_SECONDS": "1",
    "JOB_RETRY_CAP_SECONDS": "3",
    # A campaign has so many faults that it would exhaust every retry budget and open every circuit breaker.
    "RETRY_BUDGET_FLOOR": "100000",
    "BREAKER_FAILURES": "100000",
    "WEBHOOK_TIMEOUT_SECONDS": "3",
    "DATABASE_POOL_SIZE": "12",
}


@dataclass(frozen=True, slots=True)
class SeededSite:
    """A site, its API key, and the secret of its webhooks."""

    id: str
    api_key: str
    webhook_secret: str


@dataclass(slots=True)
class Member:
    """A process of the desk. It can be restarted, also with another environment."""

    program: Program
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    #: The number of its starts, and every process id it has had.
    starts: int = 0
    pids: list[int] = field(default_factory=list)

    def start(self, **environment: str) -> None:
        program = Program(
            self.program.name,
            self.program.argv,
            {**self.program.environment, **environment},
            self.program.folder,
            orphan_signal=self.program.orphan_signal,
            unix_user=self.program.unix_user,
        )
        with self.log.open("ab") as log:
            self.process = launch(program, log)
        self.starts += 1
        self.pids.append(self.process.pid)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.pids[-1]

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, or only the process itself where that is what the program expects."""
        if self.process is None or self.process.poll() is not None:
            return
        if number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
            os.killpg(self.process.pid, number)
        else:
            send(self.process.pid, number)

    async def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        assert self.process is not None
        while (code := self.process.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return code

    def stop(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            stop(self.process, self.program)


@dataclass(frozen=True, slots=True)
class Desk:
    """All processes except the workers, which `start_worker` starts."""

    folder: Path
    web_url: str
    database_url: str
    redis_url: str
    journal: Path
    sites: tuple[SeededSite, ...]
    environment: Mapping[str, str]
    postgres: Member
    valkey: Member
    web: Member
    workers: tuple[Member, ...]
    servers: Mapping[str, EmbeddedServer]

    def start_worker(self, number: int, crash_at: CrashAt | None) -> None:
        self.workers[number].start(**crash_variables(crash_at))

    async def until_ready(self, name: str) -> None:
        """Wait until the server responds."""
        while not await asyncio.to_thread(self.servers[name].is_ready):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def broker(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, socket_timeout=2, socket_connect_timeout=2)

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log")))


@contextmanager
def running_desk(plan: Plan, receiver_port: int, folder: Path | None = None) -> Iterator[Desk]:
    """Start servers, simulator and web; stop them and delete their data with the block."""
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightdesk-chaos-")))
        stack.callback(remove_cluster, folder / "postgres")
        servers = {
            "postgres": prepare_postgres(folder / "postgres", free_port(), durable=True),
            "valkey": prepare_valkey(folder / "valkey", free_port(), durable=True),
        }
        embedded = {name: Member(server.program, folder / f"{name}.log") for name, server in servers.items()}
        for member in embedded.values():
            stack.callback(member.stop)
            member.start()
        simulator = stack.enter_context(start_simulator(journal=folder / "journal.jsonl"))
        web_port = free_port()
        environment = _environment(folder, servers, simulator.url, base_url(web_port))
        for server in servers.values():
            wait_for(server.is_ready, seconds=30)
        web = _member("web", folder, environment, *WEB, "--port", str(web_port))
        workers = tuple(_member(f"worker-{number}", folder, environment, *WORKER) for number in range(plan.workers))
        for member in (web, *workers):
            stack.callback(member.stop)
        # It loads while the migrations run, and reads no table before its first request.
        web.start()
        sites = _seed(environment, f"{base_url(receiver_port)}/")
        wait_for(lambda: answers(f"{base_url(web_port)}/healthz"), seconds=60)
        yield Desk(
            folder=folder,
            web_url=base_url(web_port),
            database_url=servers["postgres"].url,
            redis_url=servers["valkey"].url,
            journal=folder / "journal.jsonl",
            sites=sites,
            environment=environment,
            postgres=embedded["postgres"],
            valkey=embedded["valkey"],
            web=web,
            workers=workers,
            servers=servers,
        )


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _environment(
    folder: Path, servers: Mapping[str, EmbeddedServer], simulator_url: str, web_url: str
) -> Mapping[str, str]:
    facts = {
        "DATABASE_URL": servers["postgres"].url,
        "REDIS_URL": servers["valkey"].url,
        "BASE_URL": web_url,
        "SIMULATOR_URL": simulator_url,
        "DJANGO_SETTINGS_MODULE": "nightdesk.settings",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "platform"))),
    }
    inherited = {**system_variables(env.child_environment({})), **SETTINGS}
    return stack_environment(inherited, load_or_create_secrets(folder / "secrets.json"), facts)


def _member(name: str, folder: Path, environment: Mapping[str, str], *arguments: str) -> Member:
    program = Program(name, (sys.executable, *arguments), environment, ROOT, grace_seconds=30)
    return Member(program, folder / f"{name}.log")


def _seed(environment: Mapping[str, str], receiver_url: str) -> tuple[SeededSite, ...]:
    command: Sequence[str] = [sys.executable, "-m", "tests.chaos.seed", receiver_url]
    made = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"The database could not be prepared:\n{made.stderr}")
    found = json.loads(made.stdout.strip().rpartition("\n")[2])
    return tuple(SeededSite(**site) for site in found)

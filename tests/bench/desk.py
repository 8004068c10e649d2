"""A desk for a benchmark: real processes as in production; the measurement starts and stops workers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.card import Card, SeededSite, make_card, parse_seeded
from devstack.options import base_url, load_or_create_secrets, stack_environment, system_variables
from devstack.ports import DEFAULT_WEB_PORT, free_port
from devstack.postgres import postgres_server
from devstack.postgres_data import remove_cluster
from devstack.program import Program, launch, stop
from devstack.stack import ROOT, WEB, WORKER
from devstack.valkey import valkey_server
from nightdesk import env
from tests.polling import wait_for
from tests.simulator_process import start_simulator

#: As in production, where a DEBUG would keep every statement in memory; and with all its log lines, as by default.
PRODUCTION = {"DEBUG": "false", "LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
#: Of each program's log, when a measure fails.
LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Desk:
    """Servers, simulator, web process and a site that receives webhooks. The measurement starts workers."""

    card: Card
    database_url: str
    broker_url: str
    journal: Path
    web_pid: int
    broker_pid: int
    folder: Path
    environment: Mapping[str, str]

    @contextmanager
    def worker(self, **settings: str) -> Iterator["Process"]:
        """Run one worker process until the block ends."""
        with running("worker", self.folder, {**self.environment, **settings}, *WORKER) as process:
            yield process


@dataclass(frozen=True, slots=True)
class Process:
    pid: int

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


@contextmanager
def running_desk() -> Iterator[Desk]:
    """Start a desk without a worker; its data is durable, as in production. Everything is removed afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightdesk-bench-")))
        stack.callback(remove_cluster, folder / "postgres")
        journal, sink_port, web_port = folder / "journal.jsonl", free_port(), free_port()
        database = stack.enter_context(postgres_server(folder / "postgres", free_port()))
        broker = stack.enter_context(valkey_server(folder / "valkey", free_port()))
        simulator = stack.enter_context(start_simulator(journal=journal))
        environment = environment_in(
            folder,
            DATABASE_URL=database.url,
            REDIS_URL=broker.url,
            BASE_URL=base_url(web_port),
            SIMULATOR_URL=simulator.url,
        )
        seeded = prepare(environment, f"{base_url(sink_port)}/")
        stack.enter_context(running("sink", folder, environment, "-m", "tests.bench.sink", str(sink_port)))
        web = stack.enter_context(running("web", folder, environment, *WEB, "--port", str(web_port)))
        wait_for(lambda: _answers(f"{base_url(web_port)}/healthz"), seconds=60)
        card = make_card(
            seeded,
            base_url=base_url(web_port),
            simulator_url=simulator.url,
            receiver_url=f"{base_url(sink_port)}/",
            database_url=database.url,
            redis_url=broker.url,
        )
        yield Desk(card, database.url, broker.url, journal, web.pid, broker.pid, folder, environment)


@contextmanager
def running(name: str, folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Process]:
    """Run a Python program until the block ends; what it writes goes to a file."""
    program = Program(name, (sys.executable, *arguments), environment, ROOT, grace_seconds=30)
    path = folder / f"{name}.log"
    with path.open("ab") as log:
        process = launch(program, log)
    try:
        yield Process(process.pid)
    except Exception as error:
        last_lines = "\n".join(path.read_text(errors="replace").splitlines()[-LINES_SHOWN:])
        end = "still runs" if process.poll() is None else f"ended with {process.returncode}"
        error.add_note(f"{name} {end}. Its last lines:\n{last_lines}")
        raise
    finally:
        stop(process, program)


def environment_in(folder: Path, **facts: str) -> dict[str, str]:
    """Return the environment of the desk's programs, as in production, with secrets kept in the folder."""
    ours = {
        "BASE_URL": base_url(DEFAULT_WEB_PORT),
        "DJANGO_SETTINGS_MODULE": "nightdesk.settings",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "platform"))),
    }
    inherited = {**system_variables(env.child_environment({})), **PRODUCTION}
    return stack_environment(inherited, load_or_create_secrets(folder / "secrets.json"), {**ours, **facts})


def prepare(environment: Mapping[str, str], receiver_url: str) -> SeededSite:
    """Create the tables and the demo site with this webhook address."""
    command = [sys.executable, "-m", "devstack.prepare", "--receiver-url", receiver_url]
    made = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"The database could not be prepared:\n{made.stderr}")
    return parse_seeded(made.stdout)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(json.load(answer))
    return False

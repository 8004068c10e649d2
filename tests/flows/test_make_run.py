"""`make run` and `make demo` as run in a terminal."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devstack.options import system_variables
from devstack.orphans import process_identity, servers_in
from devstack.ports import free_port
from devstack.postgres_data import remove_cluster
from nightdesk import env
from tests.polling import wait_for

ROOT = Path(__file__).resolve().parents[2]
PROMISED = {
    *("base_url", "site_id", "site_slug", "site_secret", "api_key", "webhook_secret"),
    *("admin_url", "admin_user", "admin_password", "simulator_url"),
}

MOVING = {"base_url", "docs_url", "admin_url", "redis_url"}


@pytest.fixture(autouse=True)
def _the_books_are_checked() -> None:
    """These desks have their own databases; the demo checks usage against the journal itself."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    remove_cluster(tmp_path / "postgres")


@dataclass(frozen=True)
class Terminal:
    """A desk that was started, and what it wrote."""

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def card(self) -> dict[str, Any]:
        """The card that it wrote for programs, once it is ready."""
        wait_for(lambda: "Nightdesk is ready" in self.said or self.process.poll() is not None, seconds=60)
        assert self.process.poll() is None, self.said
        found: dict[str, Any] = json.loads((self.folder / "local.json").read_text())
        return found

    def commands(self) -> list[str]:
        return [line.strip() for line in self.said.splitlines() if line.startswith("  curl ")]

    def everyone(self) -> list[int]:
        """Every process of the desk."""
        recorded = json.loads((self.folder / "processes.json").read_text())
        servers = [
            *servers_in((self.folder / "postgres" / "cluster").resolve(), "postgres"),
            *servers_in(self.folder / "valkey", "valkey-server"),
        ]
        return [self.process.pid, *servers, *(one["pid"] for one in recorded.values())]


@contextmanager
def started(folder: Path, **variables: str) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "devstack", "run", "--folder", str(folder)]
    log = folder / "terminal.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(**variables), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Terminal(process, log, folder)
    finally:
        process.kill()
        process.wait()


def environment(**variables: str) -> dict[str, str]:
    """A fresh terminal's environment, without the tests' own servers and settings."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "platform")))
    return {**system_variables(env.child_environment({})), "PYTHONPATH": path, **variables}


def paste(command: str) -> Any:
    return json.loads(said_by(command))


def said_by(command: str) -> str:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_commands_on_the_card_work_as_pasted_and_the_desk_survives_a_kill_and_stops_on_ctrl_c(
    folder: Path,
) -> None:
    port = free_port()
    with started(folder, PORT=str(port)) as desk:
        before = desk.card()
        assert before.keys() >= PROMISED
        assert before["base_url"] == f"http://127.0.0.1:{port}"
        assert stat.S_IMODE((folder / "local.json").stat().st_mode) == 0o600
        stream, submit, show, webhooks = desk.commands()

        streamed = said_by(stream)
        job = paste(submit)
        wait_for(lambda: paste(show)["state"] == "succeeded", every=0.2)
        received = wait_for(lambda: paste(webhooks), every=0.2)

        assert streamed.rstrip().endswith("data: [DONE]")
        assert paste(show)["id"] == job["id"]
        assert paste(show)["result"]["choices"][0]["message"]["content"]
        assert (received[0]["type"], received[0]["verified"]) == ("job.succeeded", True)
        killed = desk.everyone()
        assert len(killed) > 7
        desk.process.kill()
        desk.process.wait()
        if sys.platform == "linux":
            wait_for(lambda: still_running(killed) == [], seconds=5)

    with started(folder) as desk:
        after = desk.card()

        assert still_running(killed) == []
        assert same_desk(after) == same_desk(before)
        everyone = desk.everyone()

        desk.process.send_signal(signal.SIGINT)

        assert desk.process.wait(30) == 0
        assert not (folder / "local.json").exists(), "it is there while the desk is ready"
        assert desk.said.rstrip().endswith("nightdesk | stopped.")
        assert still_running(everyone) == []


def still_running(processes: list[int]) -> list[int]:
    return [pid for pid in processes if process_identity(pid)]


def same_desk(card: dict[str, Any]) -> dict[str, Any]:
    """The card without the addresses, which may change."""
    return {name: value for name, value in card.items() if name not in MOVING}


def test_configured_servers_are_used_instead_of_embedded_ones(folder: Path) -> None:
    database, broker = env.optional("DATABASE_URL"), env.optional("REDIS_URL")
    assert database
    assert broker
    with started(folder, DATABASE_URL=database, REDIS_URL=broker, PORT=str(free_port())) as desk:
        card = desk.card()

        assert (card["database_url"], card["redis_url"]) == (database, broker)
        assert not (folder / "postgres").exists()
        assert not (folder / "valkey").exists()


def test_the_demo_passes_and_its_last_line_says_so() -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "devstack", "demo"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    summary = json.loads(demo.stdout.splitlines()[-1])
    assert summary.keys() == {"job_state", "calls", "webhook_verified", "tokens", "cost_usd", "seconds"}
    assert (summary["job_state"], summary["calls"], summary["webhook_verified"]) == ("succeeded", 3, True)
    assert summary["tokens"] > 4000
    assert float(summary["cost_usd"]) > 0

"""A whole desk of real processes: web, workers, broker, simulator, receiver; and the books are checked at the end."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from django.db import connection
from pytest_celery import CeleryBrokerCluster, CeleryTestWorker, CeleryWorkerCluster, RedisTestBroker
from pytest_django import Settings

from core import clock, signing
from metering.models import UsageEvent
from nightdesk import env
from nightdesk.celery import app
from nightdesk.local.card import Seeded
from nightdesk.local.demo_site import seed
from nightdesk.local.ports import free_port
from nightdesk.local.valkey import prepare_valkey
from tests.flows.local_nodes import LocalBroker, LocalProcess, LocalWorker
from tests.polling import wait_for
from tests.simulator_process import SimulatorProcess, start_simulator

WORKERS = 2


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with start_simulator(journal=tmp_path_factory.mktemp("simulator") / "journal.jsonl") as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: SimulatorProcess) -> SimulatorProcess:
    """The simulator, with nothing remembered."""
    simulator_process.clear()
    return simulator_process


# pytest-celery's own fixtures, on local processes


@pytest.fixture
def celery_broker(tmp_path: Path) -> Iterator[RedisTestBroker]:
    port = free_port()
    embedded = prepare_valkey(tmp_path / "broker", port, durable=False)
    container = LocalBroker(
        LocalProcess("broker", embedded.program.argv, tmp_path, embedded.program.environment), embedded
    )
    container.ready()
    node = RedisTestBroker(container)
    yield node
    node.teardown()


@pytest.fixture
def celery_broker_cluster(celery_broker: RedisTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend_cluster() -> None:
    """Nightdesk keeps no results in Celery."""


@pytest.fixture
def celery_setup_app() -> Celery:
    """The project's own application."""
    return app


@pytest.fixture
def environment(transactional_db: None, celery_broker: RedisTestBroker, simulator: SimulatorProcess) -> dict[str, str]:
    """What the desk's processes are told."""
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    root = Path(__file__).parents[2]
    return env.merged(
        {
            "DATABASE_URL": f"{url}/{database['NAME']}",
            "DATABASE_POOL_SIZE": "12",
            "REDIS_URL": celery_broker.container.url,
            "SIMULATOR_URL": simulator.url,
            "LOG_FORMAT": "console",
            "PYTHONPATH": f"{root}:{root / 'platform'}",
        }
    )


@pytest.fixture
def celery_worker_cluster(
    environment: dict[str, str], tmp_path: Path, demo: Seeded, celery_setup_app: Celery
) -> Iterator[CeleryWorkerCluster]:
    containers = [start_worker(environment, tmp_path) for _ in range(WORKERS)]
    cluster = CeleryWorkerCluster(*[CeleryTestWorker(container, celery_setup_app) for container in containers])
    try:
        for container in containers:
            container.ready()
        yield cluster
    finally:
        for container in containers:
            container.teardown()


def start_worker(environment: dict[str, str], folder: Path) -> LocalWorker:
    command = [sys.executable, "-m", "celery", "-A", "nightdesk", "worker", "--without-gossip", "--without-mingle"]
    return LocalWorker(LocalProcess("worker", [*command, "-l", "INFO"], folder, environment))


# The desk


@dataclass(frozen=True)
class Web:
    """The API of a running web process, used as a site would."""

    url: str
    demo: Seeded

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send a signed request."""
        content = httpx.Request("POST", "http://x", json=body).content
        timestamp, nonce = str(clock.unix_seconds()), secrets.token_hex(12)
        signature = signing.sign_request(
            self.demo.site_secret, timestamp=timestamp, nonce=nonce, method="POST", target=path, body=content
        )
        signed = {
            "Content-Type": "application/json",
            "X-Site-ID": self.demo.site_id,
            "X-Timestamp": timestamp,
            "X-Nonce": nonce,
            "X-Signature": signature,
        }
        return httpx.post(self.url + path, content=content, headers={**signed, **headers}, timeout=30)

    def get(self, path: str) -> httpx.Response:
        """Ask with the API key."""
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.demo.api_key}"}, timeout=30)

    def submit(self, content: str = "Say hello.", model: str = "nightdesk-demo", **headers: str) -> str:
        """Submit a chat job and return its id."""
        body = {"kind": "chat", "body": {"model": model, "messages": [{"role": "user", "content": content}]}}
        answer = self.post("/v1/jobs", body, **headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def ended(self, job_id: str, *, seconds: float = 30) -> dict[str, Any]:
        """The job, once it has ended."""

        def read() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["finished_at"] else None

        return wait_for(read, seconds=seconds, every=0.1)


@dataclass(frozen=True)
class ReceiverProcess:
    """The receiver of webhooks of the local stack."""

    url: str

    def received(self, subject_id: str | None = None) -> list[dict[str, Any]]:
        """What came, oldest first, of one subject if given."""
        found: list[dict[str, Any]] = httpx.get(self.url, timeout=10).json()[::-1]
        return [one for one in found if subject_id in (None, one["payload"]["data"].get("job_id"))]


@pytest.fixture
def demo(transactional_db: None, simulator: SimulatorProcess, receiver: ReceiverProcess, settings: Settings) -> Seeded:
    """The demo site, its webhooks going to the receiver."""
    settings.SIMULATOR_URL = simulator.url
    return seed(receiver.url)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    port, secrets_file = free_port(), tmp_path / "receiver-secrets.json"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "nightdesk.local", "receiver", str(port), str(secrets_file)]
    process = LocalProcess("receiver", command, tmp_path, env.merged({"PYTHONPATH": f"{root}:{root / 'platform'}"}))
    yield ReceiverProcess(f"http://127.0.0.1:{port}/")
    process.destroy()


@pytest.fixture
def web(environment: dict[str, str], tmp_path: Path, demo: Seeded, receiver: ReceiverProcess) -> Iterator[Web]:
    (tmp_path / "receiver-secrets.json").write_text(f'["{demo.webhook_secret}"]')
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "nightdesk.asgi:application", "--port", str(port), "--no-access-log"]
    process = LocalProcess("web", command, tmp_path, environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{url}/healthz"), seconds=60, every=0.1)
        yield Web(url, demo)
    finally:
        process.destroy()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(autouse=True)
def _the_books_are_checked(transactional_db: None, simulator: SimulatorProcess) -> Iterator[None]:
    """Compare the simulator's journal with the usage events when a flow's processes have ended."""
    yield
    check_books(simulator)


def check_books(simulator: SimulatorProcess) -> None:
    """Every call that a provider saw has its usage event, token for token, and there is no other event."""
    journal = {entry["client_request_id"]: entry for entry in simulator.journal()}
    events = {event.dedupe_key: event for event in UsageEvent.objects.exclude(outcome="open")}
    assert UsageEvent.objects.filter(outcome="open").count() == 0
    # A worker may be killed after the account was opened and before the call was made; it then says `lost`.
    assert {key for key, event in events.items() if event.outcome != "lost"} <= set(journal) <= set(events)
    for key, entry in journal.items():
        event = events[key]
        if entry["usage_reported"] and not event.estimated:
            assert (event.input_tokens, event.output_tokens) == (entry["input_tokens"], entry["output_tokens"])
            assert event.cached_input_tokens == entry["cached_tokens"]
        if event.billable:
            assert entry["outcome"] == "ok"
            assert not event.estimated

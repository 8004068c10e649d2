"""A complete desk of real processes; at the end its usage events are compared with the simulator's journal."""

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from django.db import connection
from pytest_celery import CeleryBrokerCluster, CeleryTestBroker, CeleryTestWorker, CeleryWorkerCluster
from pytest_django import Settings

from core import clock, signing
from devstack.card import SeededSite
from devstack.demo_site import seed
from devstack.program import Program
from metering.models import UsageEvent
from nightdesk import env
from nightdesk.celery import app
from tests.flows.brokers import KINDS, Brokers
from tests.flows.local_nodes import LocalProcess, LocalWorker
from tests.polling import wait_for
from tests.ports import own_port
from tests.programs import NotInstalled, do_without
from tests.simulator_process import SimulatorProcess, start_simulator

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
#: A worker gives itself 30 s to shut down.
WORKER_GRACE_SECONDS = 35


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a flow on Valkey; those marked `every_broker`, or all with `--brokers=all`, on the others too."""
    if "broker_kind" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("brokers")
    if asked:
        kinds = list(KINDS) if asked == "all" else asked.split(",")
    else:
        kinds = list(KINDS) if metafunc.definition.get_closest_marker("every_broker") else ["valkey"]
    # Tests of one broker run one after the other, because RabbitMQ takes seconds to start.
    metafunc.parametrize("broker_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with start_simulator(journal=tmp_path_factory.mktemp("simulator") / "journal.jsonl") as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: SimulatorProcess) -> SimulatorProcess:
    """The simulator, with an empty journal."""
    simulator_process.clear()
    return simulator_process


# pytest-celery's own fixtures, on local processes


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    started = Brokers(tmp_path_factory.mktemp("brokers"))
    yield started
    started.close()


@pytest.fixture
def celery_broker(brokers: Brokers, broker_kind: str) -> CeleryTestBroker:
    try:
        return CeleryTestBroker(brokers.at(broker_kind))
    except NotInstalled as error:
        do_without(error)


@pytest.fixture
def celery_broker_cluster(celery_broker: CeleryTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend_cluster() -> None:
    """Nightdesk keeps no results in Celery."""


@pytest.fixture
def celery_setup_app() -> Celery:
    """The project's own application."""
    return app


@pytest.fixture
def environment(
    transactional_db: None, celery_broker: CeleryTestBroker, broker_kind: str, simulator: SimulatorProcess
) -> dict[str, str]:
    """The environment of the desk's processes."""
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:{database['PORT']}"
    broker = celery_broker.container.url
    return env.child_environment(
        {
            "DATABASE_URL": f"{url}/{database['NAME']}",
            "DATABASE_POOL_SIZE": "12",
            # If Redis is the broker, it need not be named twice.
            **({"BROKER_URL": broker} if broker_kind == "rabbitmq" else {"REDIS_URL": broker}),
            "SIMULATOR_URL": simulator.url,
            "LOG_FORMAT": "console",
            **SOURCES,
        }
    )


@pytest.fixture
def worker_count() -> int:
    """How many workers the desk has; a test that needs another says so with `parametrize`."""
    return 1


@pytest.fixture
def celery_worker_cluster(
    environment: dict[str, str], tmp_path: Path, worker_count: int, web: "Web", celery_setup_app: Celery
) -> Iterator[CeleryWorkerCluster]:
    containers = [start_worker(environment, tmp_path) for _ in range(worker_count)]
    cluster = CeleryWorkerCluster(*[CeleryTestWorker(container, celery_setup_app) for container in containers])
    try:
        for container in containers:
            container.ready()
        yield cluster
    finally:
        for container in containers:
            container.teardown()


def start_worker(environment: dict[str, str], logs: Path) -> LocalWorker:
    program = python_program("worker", ["celery", "-A", "nightdesk", "worker"], environment)
    return LocalWorker(LocalProcess(program, logs))


def python_program(name: str, module_and_arguments: list[str], environment: Mapping[str, str]) -> Program:
    argv = (sys.executable, "-m", *module_and_arguments)
    return Program(name, argv, environment, ROOT, grace_seconds=WORKER_GRACE_SECONDS)


# The desk


@dataclass(frozen=True)
class Web:
    """The API of a running web process, used as a site would."""

    url: str
    demo: SeededSite

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
        """Send a request with the API key."""
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
        """The job, once it has finished."""

        def read() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["finished_at"] else None

        return wait_for(read, seconds=seconds, every=0.1)


@dataclass(frozen=True)
class ReceiverProcess:
    """The webhook receiver of the local stack."""

    url: str
    secrets: Path

    def trust(self, secret: str) -> None:
        """Accept what is signed with this secret only."""
        self.secrets.write_text(json.dumps([secret]))

    def received(self, subject_id: str | None = None) -> list[dict[str, Any]]:
        """The received webhooks, oldest first, of one subject if given."""
        found: list[dict[str, Any]] = httpx.get(self.url, timeout=10).json()[::-1]
        return [one for one in found if subject_id in (None, one["payload"]["data"].get("job_id"))]


@pytest.fixture
def demo(
    transactional_db: None, simulator: SimulatorProcess, receiver: ReceiverProcess, settings: Settings
) -> SeededSite:
    """The demo site, its webhooks going to the receiver."""
    settings.SIMULATOR_URL = simulator.url
    seeded = seed(receiver.url)
    receiver.trust(seeded.webhook_secret)
    return seeded


@pytest.fixture(scope="session")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    folder, port = tmp_path_factory.mktemp("receiver"), own_port()
    receiver = ReceiverProcess(f"http://127.0.0.1:{port}/", folder / "receiver-secrets.json")
    command = ["devstack", "receiver", str(port), str(receiver.secrets)]
    process = LocalProcess(python_program("receiver", command, env.child_environment(SOURCES)), folder)
    yield receiver
    process.destroy()


class Webs:
    """Web processes, one for each broker: they keep no state between tests and start slowly."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._urls: dict[str, str] = {}
        self._all = ExitStack()

    def at(self, broker_url: str, environment: Mapping[str, str]) -> str:
        """Return the address of the one that rings this broker."""
        if broker_url not in self._urls:
            self._urls[broker_url] = self._start(environment)
        return self._urls[broker_url]

    def _start(self, environment: Mapping[str, str]) -> str:
        port = own_port()
        command = ["uvicorn", "nightdesk.asgi:application", "--port", str(port), "--no-access-log"]
        process = LocalProcess(python_program("web", command, environment), self.logs)
        self._all.callback(process.destroy)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/healthz"), seconds=60, every=0.1)
        return url

    def close(self) -> None:
        self._all.close()


@pytest.fixture(scope="session")
def webs(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webs]:
    """They end before the database is dropped."""
    started = Webs(tmp_path_factory.mktemp("webs"))
    yield started
    started.close()


@pytest.fixture
def web(environment: dict[str, str], celery_broker: CeleryTestBroker, webs: Webs, demo: SeededSite) -> Web:
    return Web(webs.at(celery_broker.container.url, environment), demo)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(autouse=True)
def _the_books_are_checked(transactional_db: None, simulator: SimulatorProcess) -> Iterator[None]:
    """Compare the simulator's journal with the usage events when a flow's processes have exited."""
    yield
    check_books(simulator)


def check_books(simulator: SimulatorProcess) -> None:
    """Every call in the journal has a usage event with the same tokens, and there is no other event."""
    journal = {entry["client_request_id"]: entry for entry in simulator.journal()}
    events = {event.dedupe_key: event for event in UsageEvent.objects.exclude(outcome="open")}
    assert UsageEvent.objects.filter(outcome="open").count() == 0
    # A worker may be killed after the usage record was opened and before the call was made; it is then `lost`.
    assert {key for key, event in events.items() if event.outcome != "lost"} <= set(journal) <= set(events)
    for key, entry in journal.items():
        event = events[key]
        if entry["usage_reported"] and not event.estimated:
            assert (event.input_tokens, event.output_tokens) == (entry["input_tokens"], entry["output_tokens"])
            assert event.cached_input_tokens == entry["cached_tokens"]
        if event.billable:
            assert entry["outcome"] == "ok"
            assert not event.estimated

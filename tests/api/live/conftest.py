"""Live requests over HTTP: a real server, Valkey and simulator, and a site with an API key."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from django.conf import settings
from redis import Redis

from jobs.worker.engine import JobEngine
from metering import buffer
from metering.models import UsageEvent
from tenants.credentials import NewSite, create_site
from tenants.rate_limiting import rules
from tests.api.live.sdks import sdk_site as sdk_site
from tests.api.live.sdks import sdks as sdks
from tests.api.live.servers import daphne_server, uvicorn_server
from tests.factories import make_provider, make_route
from tests.polling import wait_for
from tests.simulator_process import SimulatorProcess, start_simulator

#: The upstream models, by the dialect of their provider.
OPENAI_MODEL, ANTHROPIC_MODEL = "gpt-4o-mini", "claude-haiku-4-5"


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with start_simulator(journal=tmp_path_factory.mktemp("live") / "journal.jsonl") as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: SimulatorProcess) -> SimulatorProcess:
    simulator_process.clear()
    return simulator_process


@pytest.fixture(scope="session")
def uvicorn_url() -> Iterator[str]:
    with uvicorn_server() as url:
        yield url


@pytest.fixture(scope="session")
def daphne_url() -> Iterator[str]:
    with daphne_server() as url:
        yield url


@pytest.fixture(params=["uvicorn", "daphne"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The address of the server; every test that uses it runs on both."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@dataclass(frozen=True, slots=True)
class Live:
    """A site that sends live requests."""

    url: str
    made: NewSite
    simulator: SimulatorProcess

    @property
    def key(self) -> str:
        return self.made.api_key.secret

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"{self.url}{path}", json=body, headers={**self.headers, **named}, timeout=20)

    def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(f"{self.url}{path}", headers={**self.headers, **named}, timeout=20)

    def usage(self, count: int) -> list[UsageEvent]:
        """The site's usage events, once there are this many."""
        return wait_for(lambda: self._drained(count))

    def _drained(self, count: int) -> list[UsageEvent]:
        with Redis.from_url(settings.REDIS_URL) as server:
            buffer.drain(server)
        found = list(UsageEvent.objects.filter(site=self.made.site).order_by("id"))
        return found if len(found) >= count else []


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Clear the cache of limits before a test, and its site's keys in Redis after it."""
    rules.clear_cache()
    yield
    with Redis.from_url(settings.REDIS_URL) as server:
        for key in [*server.scan_iter("nd:usage*"), *server.scan_iter("nd:{*")]:
            server.delete(key)


@pytest.fixture
def live(server_url: str, simulator: SimulatorProcess, transactional_db: None) -> Live:
    openai = make_provider("sim-openai", base_url=simulator.openai_url)
    anthropic = make_provider("sim-anthropic", dialect="anthropic", base_url=simulator.url, price_list="anthropic")
    make_route("openai-chat", (openai, OPENAI_MODEL))
    make_route("anthropic-chat", (anthropic, ANTHROPIC_MODEL))
    make_route("embed", (openai, "text-embedding-3-small"))
    make_route("cut-chat", (openai, f"{OPENAI_MODEL}@cut_after_n=5"))
    return Live(server_url, create_site("Bakery", f"bakery-{uuid.uuid4().hex[:8]}"), simulator)


@pytest.fixture
def worker(live: Live) -> Iterator[None]:
    """A worker's engine, in a thread of its own. Name it after the fixture that makes its routes."""
    engine = JobEngine()
    thread = threading.Thread(target=asyncio.run, args=[engine.run()])
    thread.start()
    yield
    engine.stop()
    thread.join(30)
    assert not thread.is_alive()

"""The vendors' own SDKs, unmodified, against every provider; only base URL and key are changed."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI
from pytest_django import DjangoDbBlocker

from devstack.demo_site import ROUTES
from inference.models import ProviderAccount
from tenants.credentials import create_site
from tenants.models import Limit
from tests.factories import make_route
from tests.simulator_process import SimulatorProcess
from tests.tables import empty_tables

SAYS: Any = [{"role": "user", "content": "Say hello."}]
#: One red pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

#: An upstream model by the name of its provider, which is also the model name of the route.
UPSTREAMS: dict[str, str] = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "azure": "gpt-4o-mini",
    "azure-dated": "gpt-4o-mini",
}

every_upstream = pytest.mark.parametrize("model", UPSTREAMS)
each_dialect = pytest.mark.parametrize("model", ["openai", "anthropic"])
#: Without it a test runs on uvicorn only.
on_both_servers = pytest.mark.parametrize("sdks", ["uvicorn", "daphne"], indirect=True)


@dataclass(frozen=True, slots=True)
class Sdks:
    """The SDK clients of one site at one server, without automatic retries."""

    url: str
    key: str
    simulator: SimulatorProcess = field(repr=False)
    openai: OpenAI = field(repr=False)
    anthropic: Anthropic = field(repr=False)

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


@dataclass(frozen=True, slots=True)
class SdkSite:
    """A site with routes to every provider, and its clients, shared by all tests of a module."""

    key: str
    clients: dict[str, tuple[OpenAI, Anthropic]] = field(default_factory=dict)

    def clients_at(self, url: str) -> tuple[OpenAI, Anthropic]:
        if url not in self.clients:
            self.clients[url] = (
                OpenAI(base_url=f"{url}/v1", api_key=self.key, max_retries=0, timeout=20),
                Anthropic(base_url=url, api_key=self.key, max_retries=0, timeout=20),
            )
        return self.clients[url]

    def close(self) -> None:
        for openai, anthropic in self.clients.values():
            openai.close()
            anthropic.close()


@pytest.fixture(scope="module")
def sdk_site(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, simulator_process: SimulatorProcess
) -> Iterator[SdkSite]:
    # Rows for a module, not for a test: making these takes longer than most of these tests.
    with django_db_blocker.unblock():
        for name, upstream_model in UPSTREAMS.items():
            provider = new_provider(name, simulator_process)
            provider.save()
            make_route(name, (provider, upstream_model))
        openai, anthropic = (ProviderAccount.objects.get(name=name) for name in ("openai", "anthropic"))
        make_route("anthropic-then-openai", (anthropic, UPSTREAMS["anthropic"]), (openai, UPSTREAMS["openai"]))
        make_route("embed", (openai, "text-embedding-3-small"))
        for name in ("openai", "anthropic"):
            account = ProviderAccount.objects.get(name=name)
            # It always calls a tool.
            make_route(f"{name}-tools", (account, f"{UPSTREAMS[name]}@tool_calls=1"))
            cut = f"{UPSTREAMS[name]}@cut_after_n=3"
            make_route(f"{name}-cut", (account, cut))
            other = "anthropic" if name == "openai" else "openai"
            make_route(f"{name}-continued", (account, cut), (ProviderAccount.objects.get(name=other), UPSTREAMS[other]))
        # As `make run` has them, for the how-to.
        for model, targets in ROUTES.items():
            make_route(model, *((ProviderAccount.objects.get(name=name[4:]), behind) for name, behind in targets))
        make_route("slow", (openai, "gpt-4o-mini@ttft_ms=600"))
        made = create_site("Bakery", f"bakery-{uuid.uuid4().hex[:8]}")
        Limit.objects.create(site=made.site, requests_per_minute=10_000, tokens_per_minute=10_000_000)
        site = SdkSite(made.api_key.secret)
        try:
            yield site
        finally:
            site.close()
            empty_tables()


@pytest.fixture
def sdks(request: pytest.FixtureRequest, sdk_site: SdkSite, simulator: SimulatorProcess) -> Sdks:
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'uvicorn')}_url")
    openai, anthropic = sdk_site.clients_at(url)
    return Sdks(url, sdk_site.key, simulator, openai, anthropic)


def new_provider(like: str, simulator: SimulatorProcess, **fields: Any) -> ProviderAccount:
    """Return an unsaved account like this one of `UPSTREAMS`, at the simulator."""
    wanted: dict[str, Any] = {"name": like, "api_key": b"sk-test", "base_url": simulator.url, "price_list": "openai"}
    match like:
        case "openai":
            wanted |= {"dialect": "openai", "base_url": simulator.openai_url}
        case "anthropic":
            wanted |= {"dialect": "anthropic", "price_list": "anthropic"}
        case "azure":
            wanted |= {"dialect": "azure"}
        case "azure-dated":
            wanted |= {"dialect": "azure", "api_version": "2024-10-21"}
    return ProviderAccount(**{**wanted, **fields})

"""Fixtures: a page in a browser, a desk behind a TCP proxy that can be cut, and the site that serves the page."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_django import Settings

from tenants.credentials import create_site
from tests.api.live.conftest import Live
from tests.api.live.conftest import _nothing_is_left as _nothing_is_left
from tests.api.live.conftest import live as live
from tests.api.live.conftest import simulator as simulator
from tests.api.live.conftest import simulator_process as simulator_process
from tests.api.live.servers import uvicorn_server
from tests.browser.devtools import Browser, Tab, start_browser
from tests.browser.network import Line, page_server
from tests.factories import make_provider, make_route
from tests.polling import wait_for
from tests.programs import NotInstalled, do_without

#: The same answer without delay, and in 50 deltas within 1.5 s, at reading speed.
AT_ONCE = "gpt-4o-mini@tokens=50"
#: Three seconds: on a busy machine a browser needs one to notice that its network is gone.
PACED = f"{AT_ONCE},deltas=50,inter_token_ms=60"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    try:
        with start_browser(tmp_path_factory.mktemp("chromium")) as started:
            yield started
    except NotInstalled as error:
        do_without(error)


@pytest.fixture(scope="session")
def origins() -> Iterator[tuple[str, str, str]]:
    """Three origins that serve the same page: the site's, another site's, and an unknown one."""
    with page_server() as ours, page_server() as theirs, page_server() as nobodys:
        yield ours, theirs, nobodys


# Daphne can be run once in a process, and tests/api/live does.
@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with uvicorn_server() as url:
        yield url


@pytest.fixture
def line(server_url: str) -> Iterator[Line]:
    made = Line(urlsplit(server_url).port or 80)
    yield made
    made.close()


@dataclass(frozen=True, slots=True)
class Shop:
    """A site with a page, which is open in a browser."""

    live: Live
    browser: Browser
    line: Line
    tab: Tab
    origin: str
    other_site_s_origin: str
    nobody_s_origin: str

    @property
    def desk(self) -> str:
        """The desk's address as pages see it."""
        return self.line.url

    def token(self, model: str = "paced") -> str:
        """What the site's server passes to its page."""
        wanted = {"scope": "chat:write streams:read", "model": model, "max_tokens": 100, "origin": self.origin}
        answer = self.live.post("/v1/tokens", wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def lose_network(self) -> None:
        self.tab.set_offline(True)
        # DevTools leave open connections alone: WebSockets, and in some versions running responses.
        self.line.cut()
        assert self.tab.evaluate("navigator.onLine") is False

    def regain_network(self) -> None:
        self.line.mend()
        self.tab.set_offline(False)

    def state(self) -> dict[str, Any]:
        """The page's progress."""
        found: dict[str, Any] = self.tab.evaluate("({...state, text: shown.textContent})")
        assert found["refused"] is None, found
        return found

    def wait_for_state(self, field: str, at_least: int = 1) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            state = self.state()
            value = state[field]
            return state if (len(value) if isinstance(value, list | str) else int(value)) >= at_least else None

        return wait_for(reached)


@pytest.fixture
def shop(live: Live, browser: Browser, line: Line, origins: tuple[str, str, str], settings: Settings) -> Iterator[Shop]:
    settings.BASE_URL = line.url
    provider = make_provider("sim-paced", base_url=live.simulator.openai_url)
    make_route("paced", (provider, PACED))
    make_route("at-once", (provider, AT_ONCE))
    ours, theirs, nobodys = origins
    live.made.site.origins = [ours]
    live.made.site.save()
    other = create_site("Florist", f"florist-{uuid.uuid4().hex[:8]}").site
    other.origins = [theirs]
    other.save()
    with browser.open(f"{ours}/shop.html") as tab:
        yield Shop(live, browser, line, tab, ours, theirs, nobodys)

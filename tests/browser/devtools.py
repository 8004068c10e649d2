"""Headless Chromium, driven through the DevTools protocol."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from devstack.program import Program, launch, stop
from nightdesk import env
from tests.polling import wait_for
from tests.ports import own_port
from tests.programs import NotInstalled

HOST = "127.0.0.1"
SECONDS = 20.0
#: Debian's package calls it chromium, others otherwise.
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    # Its sandbox refuses root, and containers often refuse its sandbox; the pages are ours.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-proxy-server",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium delays the timers of background pages by up to a second.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


class PageError(Exception):
    """A page's script failed, or DevTools refused a command."""


class Tab:
    """One page. Calls wait for their result."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return DevTools' response to a command; events are skipped."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._connection.recv(SECONDS))
            if said.get("id") == number:
                break
        if "error" in said:
            raise PageError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, once its promise is resolved."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise PageError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def invoke(self, function: str, **wanted: Any) -> Any:
        """Return the result of a function of the page's script."""
        return self.evaluate(f"{function}({json.dumps(wanted)})")

    def begin(self, function: str, **wanted: Any) -> None:
        """Call a function of the page's script without waiting for it."""
        self.evaluate(f"void {function}({json.dumps(wanted)})")

    def set_offline(self, offline: bool) -> None:
        """Switch the page's network off or on."""
        self.call(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )


@dataclass(frozen=True, slots=True)
class Browser:
    """A running Chromium."""

    #: Where its DevTools answer.
    url: str

    @contextmanager
    def open(self, address: str) -> Iterator[Tab]:
        """A new tab, once its page has loaded; it closes with the block."""
        made = httpx.put(f"{self.url}/json/new?{address}", timeout=SECONDS).raise_for_status().json()
        with connect(made["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
            tab = Tab(connection)
            tab.call("Network.enable")
            wait_for(lambda: tab.evaluate(f"document.readyState === 'complete' && location.href === {address!r}"))
            yield tab
            tab.call("Page.close")


@contextmanager
def start_browser(folder: Path) -> Iterator[Browser]:
    """Run a Chromium with an empty profile, and stop it with the block. Raises `NotInstalled`."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise NotInstalled("chromium", by="browser")
    port = own_port()
    own = (f"--user-data-dir={folder / 'profile'}", f"--remote-debugging-port={port}")
    # It also writes to the home folder, unless HOME points elsewhere.
    environment = env.child_environment({"HOME": str(folder), "TMPDIR": str(folder)})
    program = Program("chromium", (path, *FLAGS, *own, "about:blank"), environment, folder, grace_seconds=5)
    with (folder / "chromium.log").open("wb") as log, launch(program, log) as process:
        try:
            url = f"http://{HOST}:{port}"
            wait_for(lambda: _answers(url, process, Path(log.name)))
            yield Browser(url)
        finally:
            stop(process, program)


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Chromium ended:\n{log.read_text()[-2000:]}")
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/json/version", timeout=SECONDS).status_code == 200
    return False

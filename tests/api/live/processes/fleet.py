"""Web processes as in production, which share Postgres, Valkey and the simulator."""

import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
from django.conf import settings
from django.db import connection
from redis import Redis

from devstack.program import Program, launch, send, stop
from inference.models import ProviderAccount, Route, RouteTarget
from metering import buffer
from metering.models import UsageEvent, UsageOutcome
from nightdesk import env
from providers.types import Dialect
from tenants.credentials import NewSite, create_site
from tests.polling import wait_for
from tests.ports import own_port
from tests.simulator_process import SimulatorProcess

ROOT = Path(__file__).resolve().parents[4]
HOST = "127.0.0.1"
PROVIDERS = (Dialect.OPENAI, Dialect.ANTHROPIC)
#: The simulator's names of what each provider sells.
UPSTREAM = {Dialect.OPENAI: "gpt-4o-mini", Dialect.ANTHROPIC: "claude-haiku-4-5"}
#: As in production, but with short waits, and with bounds that deliberate faults do not reach.
ENVIRONMENT = {
    "DEBUG": "false",
    "LOG_FORMAT": "json",
    "SECRET_KEY": "a key of the tests, long enough for production",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
    "DATABASE_POOL_SIZE": "4",
    "STREAM_GRACE_SECONDS": "1",
    "STREAM_KEEPALIVE_SECONDS": "1",
    "LIVE_DRAIN_SECONDS": "1",
    "RETRY_BUDGET_FLOOR": "100000",
    "BREAKER_FAILURES": "100000",
}


@dataclass(frozen=True, slots=True)
class Web:
    """One web process."""

    url: str
    program: Program
    process: "Popen[bytes]"
    log: Path

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program.name} ended:\n{self.log.read_text()[-2000:]}")
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        return False

    def signal(self, number: int) -> None:
        send(self.process.pid, number)  # type: ignore[arg-type]

    def events(self) -> list[str]:
        """The names of the events in its log."""
        return [word for line in self.log.read_text().splitlines() for word in [_event_in(line)] if word]

    def metric(self, name: str) -> float:
        """The value of this metric, labels included; 0 if it does not exist yet."""
        lines = httpx.get(f"{self.url}/metrics", timeout=5).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def _event_in(line: str) -> str | None:
    with suppress(ValueError):
        found = httpx.Response(200, content=line).json()
        return str(found.get("event")) if isinstance(found, dict) else None
    return None


class Fleet:
    """The web processes of one run of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Web] = []
        self._kept: list[Web] = []

    def first(self, count: int) -> list[Web]:
        """This number of processes that are shared by all tests."""
        self._kept += self.start(*[{} for _ in range(count - len(self._kept))])
        return self._kept[:count]

    def start(self, *environments: Mapping[str, str], server: str = "uvicorn") -> list[Web]:
        """Start more processes, each with its own variables. `Desk.make_known` waits for them."""
        return [self._launch({**ENVIRONMENT, **one}, server) for one in environments]

    def close(self) -> None:
        for web in self._all:
            send(web.process.pid, web.program.kill_signal)
        for web in self._all:
            stop(web.process, web.program)

    def _launch(self, environment: Mapping[str, str], server: str) -> Web:
        port = own_port()
        name = f"{server}-{len(self._all)}"
        servers = {
            "uvicorn": ("--host", HOST, "--port", str(port), "--no-access-log", "nightdesk.asgi:application"),
            "daphne": ("-b", HOST, "-p", str(port), "--verbosity", "0", "nightdesk.asgi:application"),
        }
        own = {"DATABASE_URL": database_url(), "REDIS_URL": settings.REDIS_URL}
        argv = (sys.executable, "-m", server, *servers[server])
        program = Program(name, argv, env.child_environment({**own, **environment}), ROOT)
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            web = Web(f"http://{HOST}:{port}", program, launch(program, output), log)
        self._all.append(web)
        return web


def database_url() -> str:
    """The address of the tests' database."""
    known = connection.settings_dict
    return f"postgresql://{known['USER']}:{known['PASSWORD']}@{known['HOST']}:{known['PORT']}/{known['NAME']}"


@dataclass(slots=True)
class Desk:
    """What the processes share: the simulator, and the routes in Postgres."""

    fleet: Fleet
    simulator: SimulatorProcess
    #: Unique per module, so that a route cached for an earlier module is not taken for one of these.
    word: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _routes: dict[tuple[tuple[Dialect, str], ...], str] = field(default_factory=dict)

    def make_routes(self, wanted: Sequence[Sequence[tuple[Dialect, str]]]) -> None:
        """Make a route for each list of targets: a provider, and how the simulator behaves there."""
        accounts = {account.name: account for account in ProviderAccount.objects.all()}
        for places in wanted:
            model = f"{self.word}-{len(self._routes)}"
            self._routes[tuple(places)] = model
        routes = Route.objects.bulk_create(Route(model=self.model(*places)) for places in wanted)
        RouteTarget.objects.bulk_create(
            RouteTarget(
                route=route,
                provider=accounts[f"sim-{dialect}"],
                upstream_model=f"{UPSTREAM[dialect]}@{controls}" if controls else UPSTREAM[dialect],
                position=position,
            )
            for route, places in zip(routes, wanted, strict=True)
            for position, (dialect, controls) in enumerate(places, 1)
        )

    def model(self, *places: tuple[Dialect, str]) -> str:
        """The model name of a route."""
        return self._routes[places]

    def webs(self, count: int = 2) -> list[Web]:
        """This number of processes that know the routes."""
        webs = self.fleet.first(count)
        self.make_known(webs)
        return webs

    @property
    def url(self) -> str:
        """The address of one of them."""
        return self.fleet.first(1)[0].url

    def make_known(self, webs: Sequence[Web]) -> None:
        """Wait until the processes respond and know all routes."""
        headers = Caller(self, create_site("Prober", f"prober-{uuid.uuid4().hex[:8]}")).headers
        newest = list(self._routes.values())[-1]
        for web in webs:
            wait_for(web.is_up, seconds=60, every=0.05)
            wait_for(lambda: httpx.get(f"{web.url}/v1/models/{newest}", headers=headers).status_code == 200)  # noqa: B023

    def caller(self) -> "Caller":
        return Caller(self, create_site("Bakery", f"bakery-{uuid.uuid4().hex[:8]}"))


@dataclass(frozen=True, slots=True)
class Caller:
    """A site that sends requests."""

    desk: Desk
    made: NewSite

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.made.api_key.secret}"}

    def usage(self, count: int = 0) -> list[UsageEvent]:
        """Its usage events, once there are this many."""
        return wait_for(lambda: self._drained(count))

    def settled(self, *, cached: int = 0) -> dict[str, tuple[dict[str, Any], UsageEvent]]:
        """Wait until the usage events match the provider's journal, call by call; return both by call."""

        def both() -> dict[str, tuple[dict[str, Any], UsageEvent]] | None:
            journal = {entry["client_request_id"]: entry for entry in self.desk.simulator.journal()}
            events = {event.dedupe_key: event for event in self._drained(0)}
            calls = {key for key, event in events.items() if event.provider != "cache"}
            running = {key for key, entry in journal.items() if not entry["finished_at"]}
            running |= {key for key, event in events.items() if event.outcome == UsageOutcome.OPEN}
            missing.clear()
            missing.update(unknown=calls - journal.keys(), unpaid=journal.keys() - calls, running=running)
            is_told = not any(missing.values()) and len(events) - len(calls) == cached
            return {key: (journal[key], events[key]) for key in journal} if is_told else None

        missing: dict[str, set[str]] = {}
        try:
            found = wait_for(both)
        except AssertionError as error:
            error.add_note(f"{missing}")
            raise
        for entry, event in found.values():
            check_account(entry, event)
        return found

    def _drained(self, count: int) -> list[UsageEvent]:
        with Redis.from_url(settings.REDIS_URL) as server:
            buffer.drain(server)
            buffer.close_orphaned_calls(server)
        found = list(UsageEvent.objects.filter(site=self.made.site).order_by("id"))
        return found if len(found) >= count else []


def check_account(entry: Mapping[str, Any], event: UsageEvent) -> None:
    """Compare what the provider served with the usage event: estimated only if the provider did not report usage."""
    # A reset discards bytes that were not read yet, and a canceled call reads nothing more.
    was_read = event.outcome in (UsageOutcome.OK, UsageOutcome.ERROR) and entry["outcome"] != "rst"
    if event.estimated:
        assert event.input_tokens > 0, entry
        assert not (was_read and entry["usage_reported"]), entry
    elif entry["usage_reported"]:
        assert (event.input_tokens, event.output_tokens) == (entry["input_tokens"], entry["output_tokens"]), entry
    else:
        # Rejected: no tokens were processed.
        assert event.input_tokens == event.output_tokens == 0, entry

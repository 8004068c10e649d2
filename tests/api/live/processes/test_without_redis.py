"""Redis is killed under live traffic and restarted: LIVE_FAIL_MODE `open` serves uncounted, `closed` sends 503."""

from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from redis import Redis

from devstack.embedded import EmbeddedServer
from devstack.program import launch, stop
from devstack.valkey import prepare_valkey
from metering import buffer
from metering.models import UsageEvent, UsageOutcome
from providers.types import Dialect
from tenants.models import Limit
from tests.api.live.processes.fleet import Caller, Desk, Web
from tests.api.live.processes.wire import Answer, ask, at_once, has_clean_end
from tests.polling import wait_for, wait_until
from tests.ports import own_port

QUICK = (Dialect.OPENAI, "deltas=4")
#: Redis is killed in the middle of it, and restarted before its end.
LONG = (Dialect.OPENAI, "deltas=80,inter_token_ms=50")


class Valkey:
    """A Redis that can be killed, and restarted without its data."""

    def __init__(self, embedded: EmbeddedServer, log: Path) -> None:
        self.url = embedded.url
        self._embedded = embedded
        self._log = log
        self._process: Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = launch(self._embedded.program, output)
        wait_for(self._embedded.is_ready)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process is not None:
            stop(self._process, self._embedded.program)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    folder = tmp_path_factory.mktemp("valkey")
    server = Valkey(prepare_valkey(folder, own_port(), durable=False), folder / "server.log")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def webs(desk: Desk, valkey: Valkey) -> dict[str, Web]:
    desk.make_routes([[QUICK], [LONG]])
    started = desk.fleet.start(*({"REDIS_URL": valkey.url, "LIVE_FAIL_MODE": way} for way in ("open", "closed")))
    desk.make_known(started)
    return dict(zip(("open", "closed"), started, strict=True))


async def chat(web: Web, caller: Caller, path: str, model: str, *, stream: bool, word: str = "Hello.") -> Answer:
    body: dict[str, Any] = {"model": model, "stream": stream, "max_tokens": 4000}
    body["messages"] = [{"role": "user", "content": word}]
    headers = {**caller.headers, "anthropic-version": "2023-06-01", "cache-control": "no-store"}
    return await ask(web.url, "POST", path, headers, body)


OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"


def test_live_traffic_survives_a_restart_of_redis(
    desk: Desk, caller: Caller, webs: dict[str, Web], valkey: Valkey
) -> None:
    Limit.objects.create(site=caller.made.site, requests_per_minute=3)
    quick, long = desk.model(QUICK), desk.model(LONG)

    async def kill_in_the_middle() -> list[Answer]:
        await wait_until(lambda: any(entry["output_tokens"] > 4 for entry in desk.simulator.journal()))
        valkey.kill()
        asking = [
            chat(web, caller, path, quick, stream=stream)
            for web in webs.values()
            for path in (OPENAI, ANTHROPIC)
            for stream in (False, True)
        ]
        answers = [await one for one in asking]
        valkey.start()
        return answers

    asking: list[Any] = [chat(webs["open"], caller, OPENAI, long, stream=True), kill_in_the_middle()]
    running, away = at_once(*asking)

    assert has_clean_end(running.events, Dialect.OPENAI)
    is_open, closed = away[:4], away[4:]
    assert [answer.status for answer in is_open] == [200] * 4, [answer.raw[-300:] for answer in is_open]
    assert all(answer.is_whole for answer in is_open)
    assert [
        has_clean_end(is_open[place].events, spoken) for place, spoken in ((1, Dialect.OPENAI), (3, Dialect.ANTHROPIC))
    ] == [True, True]
    assert [answer.status for answer in closed] == [503] * 4
    assert all(int(answer.headers["retry-after"]) > 0 for answer in closed)
    assert [set(answer.json()) >= {"error"} for answer in closed] == [True] * 4
    assert closed[2].json()["type"] == "error"
    for way, web in webs.items():
        assert "live_redis_unavailable" in web.events()
        assert web.metric(f'nightdesk_redis_unavailable_requests_total{{fail_mode="{way}"}}') == 4
    _count_again(desk, caller, webs)
    _all_is_accounted_for(desk, caller, valkey)


def _count_again(desk: Desk, caller: Caller, webs: dict[str, Web]) -> None:
    """Whether the limit is enforced again, over both processes."""
    answers = at_once(
        *(
            chat(web, caller, OPENAI, desk.model(QUICK), stream=False, word=f"{number}")
            for number in range(3)
            for web in webs.values()
        )
    )
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 3


def _all_is_accounted_for(desk: Desk, caller: Caller, valkey: Valkey) -> None:
    def is_enforced() -> bool:
        with Redis.from_url(valkey.url) as server:
            buffer.drain(server)
        events = UsageEvent.objects.filter(site=caller.made.site, outcome=UsageOutcome.OK)
        journal = {entry["client_request_id"] for entry in desk.simulator.journal()}
        return journal == set(events.values_list("dedupe_key", flat=True))

    wait_for(is_enforced)

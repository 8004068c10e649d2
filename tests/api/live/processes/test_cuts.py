"""Clients that are cut off at any byte and resume at another process: no event is lost, repeated or billed twice."""

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from providers.types import Dialect
from tests.api.live.processes.fleet import PROVIDERS, Caller, Desk, Web
from tests.api.live.processes.wire import Answer, Event, ask, at_once, has_clean_end, text_of

CUTS, AT_ONCE = 200, 50
SEED = 20_261_122
#: Long enough that a cut falls into a stream that is still being written.
PACE = "deltas=24,inter_token_ms=8"
PATHS = {Dialect.OPENAI: "/v1/chat/completions", Dialect.ANTHROPIC: "/v1/messages"}


@dataclass(frozen=True, slots=True)
class Way:
    """From a caller's dialect to a provider."""

    dialect: Dialect
    model: str

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Say what can be cut: “é”, “ñ”, “漢字”."}]
        return {"model": self.model, "messages": messages, "stream": True, "max_tokens": 64}


@pytest.fixture(scope="module")
def ways(desk: Desk) -> list[Way]:
    desk.make_routes([[(provider, PACE)] for provider in PROVIDERS])
    return [Way(dialect, desk.model((provider, PACE))) for dialect, provider in product(PROVIDERS, PROVIDERS)]


async def start(web: Web, caller: Caller, way: Way, key: str, cut_after: int | None = None) -> Answer:
    headers = {**caller.headers, "idempotency-key": key, "anthropic-version": "2023-06-01"}
    return await ask(web.url, "POST", PATHS[way.dialect], headers, way.body, cut_after=cut_after)


async def go_on(web: Web, caller: Caller, way: Way, key: str, seen: list[Event], *, by_header: bool) -> list[Event]:
    """Resume as a client does: after its last event, or, if it has none, by sending the request again."""
    if not seen:
        return (await start(web, caller, way, key)).events
    path, headers = f"/v1/streams/{seen[-1].stream}/events", dict(caller.headers)
    if by_header:
        headers["last-event-id"] = seen[-1].id
    else:
        path += f"?after={seen[-1].id}"
    answer = await ask(web.url, "GET", path, headers)
    assert answer.status == 200, answer.raw
    assert answer.is_whole
    return answer.events


async def be_cut(webs: list[Web], caller: Caller, way: Way, key: str, offset: int, *, by_header: bool) -> list[Event]:
    here, there = webs
    seen = (await start(here, caller, way, key, cut_after=offset)).events
    return seen + await go_on(there, caller, way, key, seen, by_header=by_header)


def test_a_client_cut_off_at_any_byte_resumes_at_another_process(desk: Desk, caller: Caller, ways: list[Way]) -> None:
    webs = desk.webs(2)
    uncut = at_once(*(start(webs[0], caller, way, f"uncut-{place}") for place, way in enumerate(ways)))
    chance = random.Random(SEED)
    plan = [(number % len(ways), chance.randint(1, len(uncut[number % len(ways)].raw))) for number in range(CUTS)]

    joined = at_once(
        *(
            be_cut(webs[:: (-1) ** number], caller, ways[place], f"cut-{number}", offset, by_header=number % 8 < 4)
            for number, (place, offset) in enumerate(plan)
        ),
        most=AT_ONCE,
    )

    for (place, offset), events in zip(plan, joined, strict=True):
        way, whole = ways[place], uncut[place].events
        assert text_of(events, way.dialect) == text_of(whole, way.dialect), (way, offset)
        assert [event.seq for event in events] == list(range(1, len(whole) + 1)), (way, offset)
        assert has_clean_end(events, way.dialect)
    assert len(caller.settled()) == CUTS + len(ways)

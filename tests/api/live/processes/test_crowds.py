"""Many clients over several processes: a limit admits exactly its number, and one idempotency key makes one call."""

import random
from typing import Any

import pytest

from providers.types import Dialect
from tenants.models import Limit
from tests.api.live.processes.fleet import Caller, Desk, Web
from tests.api.live.processes.wire import Answer, ask, at_once

SEEDS = 20
PROCESSES, CLIENTS = 4, 50
QUICK = (Dialect.OPENAI, "deltas=4")
#: Long enough that every client has sent its request before the first answer.
SLOW = (Dialect.OPENAI, "deltas=4,ttft_ms=700")


@pytest.fixture(scope="module")
def webs(desk: Desk) -> list[Web]:
    desk.make_routes([[QUICK], [SLOW]])
    return desk.webs(PROCESSES)


async def chat(web: Web, caller: Caller, model: str, *, stream: bool, word: str, **more: str) -> Answer:
    body: dict[str, Any] = {"model": model, "stream": stream, "messages": [{"role": "user", "content": word}]}
    headers = {**caller.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
    return await ask(web.url, "POST", "/v1/chat/completions", headers, body)


def test_four_processes_admit_exactly_the_limit(desk: Desk, webs: list[Web], simulator: object) -> None:
    for seed in range(SEEDS):
        chance, caller = random.Random(seed), desk.caller()
        limit, request_count = chance.randint(1, 40), chance.randint(41, 60)
        Limit.objects.create(site=caller.made.site, requests_per_minute=limit)

        answers = at_once(
            *(
                chat(chance.choice(webs), caller, desk.model(QUICK), stream=chance.random() < 0.3, word=f"{number}")
                for number in range(request_count)
            ),
            most=PROCESSES * CLIENTS,
        )

        refused = [answer for answer in answers if answer.status == 429]
        assert [answer.status for answer in answers].count(200) == limit, seed
        assert len(refused) == request_count - limit, seed
        assert all(0 < int(answer.headers["retry-after"]) <= 61 for answer in refused), seed
        assert all(answer.json()["error"]["code"] == "rate_limit_exceeded" for answer in refused)


def test_fifty_clients_of_each_of_four_processes_share_one_limit(desk: Desk, caller: Caller, webs: list[Web]) -> None:
    Limit.objects.create(site=caller.made.site, requests_per_minute=97)

    answers = at_once(
        *(
            chat(web, caller, desk.model(QUICK), stream=False, word=f"{web.url} {number}")
            for number in range(CLIENTS)
            for web in webs
        )
    )

    assert [answer.status for answer in answers].count(200) == 97
    assert [answer.status for answer in answers].count(429) == PROCESSES * CLIENTS - 97
    assert len(caller.settled()) == 97


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_fifty_requests_with_one_key_make_one_call_and_all_are_answered(
    desk: Desk, caller: Caller, webs: list[Web], stream: bool
) -> None:
    answers = at_once(
        *(
            chat(webs[number % 2], caller, desk.model(SLOW), stream=stream, word="One.", idempotency_key="one")
            for number in range(CLIENTS)
        )
    )

    assert {(answer.status, answer.is_whole) for answer in answers} == {(200, True)}
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.headers["content-type"] for answer in answers}) == 1
    assert sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers) == CLIENTS - 1
    assert len(caller.settled()) == 1

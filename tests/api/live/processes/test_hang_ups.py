"""Clients that disconnect, reconnect or cancel: until when the provider works, and how that is billed."""

import asyncio
from typing import Any

import pytest

from metering.models import UsageOutcome
from providers.types import Dialect
from tests.api.live.processes.fleet import Caller, Desk, Web
from tests.api.live.processes.wire import Answer, ask, at_once, has_clean_end, text_of
from tests.polling import wait_until

#: No test waits for its end.
ENDLESS = (Dialect.OPENAI, "deltas=6000,inter_token_ms=50")
#: Longer than the grace time of a second, with room for what is checked within it.
LONG = (Dialect.OPENAI, "deltas=80,inter_token_ms=50")
SHORT = (Dialect.OPENAI, "deltas=20,inter_token_ms=20")
QUICK = (Dialect.OPENAI, "deltas=4")
CUT = (Dialect.OPENAI, "deltas=4,cut_after_n=2")
DOWN = (Dialect.OPENAI, "status=503")
FALLBACK = (Dialect.ANTHROPIC, "deltas=4")
SILENT = (Dialect.OPENAI, "deltas=4,drop_usage")


@pytest.fixture(scope="module")
def webs(desk: Desk) -> list[Web]:
    desk.make_routes([[each] for each in (ENDLESS, LONG, SHORT, QUICK, CUT, SILENT)])
    desk.make_routes([[DOWN, FALLBACK]])
    return desk.webs(2)


def body(desk: Desk, *places: tuple[Dialect, str], stream: bool = True, word: str = "Hello.") -> dict[str, Any]:
    messages = [{"role": "user", "content": word}]
    return {"model": desk.model(*places), "messages": messages, "stream": stream, "max_tokens": 8000}


async def chat(
    web: Web, caller: Caller, request_body: dict[str, Any], until: bytes | None = None, **more: str
) -> Answer:
    headers = {**caller.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
    return await ask(web.url, "POST", "/v1/chat/completions", headers, request_body, until=until)


async def read_on(web: Web, caller: Caller, seen: Answer) -> Answer:
    last = seen.events[-1]
    return await ask(web.url, "GET", f"/v1/streams/{last.stream}/events?after={last.id}", caller.headers)


def test_an_abandoned_stream_is_closed_upstream_and_its_usage_estimated(
    desk: Desk, caller: Caller, webs: list[Web]
) -> None:
    at_once(chat(webs[0], caller, body(desk, ENDLESS), until=b"data"))

    ((entry, event),) = caller.settled().values()
    assert entry["client_disconnected"]
    # It ran on for the grace time, because its reader might have reconnected.
    assert entry["finished_at"] - entry["started_at"] > 1
    assert (event.outcome, event.estimated) == (UsageOutcome.CANCELED, True)
    assert event.output_tokens > 0


def test_a_reader_within_the_grace_time_gets_every_event_and_a_detached_stream_needs_none(
    desk: Desk, caller: Caller, webs: list[Web]
) -> None:
    async def stay() -> str:
        return text_of((await chat(webs[0], caller, body(desk, LONG))).events, Dialect.OPENAI)

    async def come_back(web: Web) -> str:
        seen = await chat(webs[0], caller, body(desk, LONG), until=b"data")
        rest = await read_on(web, caller, seen)
        assert has_clean_end(rest.events, Dialect.OPENAI)
        return text_of([*seen.events, *rest.events], Dialect.OPENAI)

    async def start() -> str:
        return str((await ask(webs[0].url, "POST", "/v1/streams", caller.headers, body(desk, LONG))).json()["id"])

    whole, here, there, detached = at_once(stay(), come_back(webs[0]), come_back(webs[1]), start())

    assert whole == here == there
    for entry, event in caller.settled().values():
        assert (entry["outcome"], entry["client_disconnected"]) == ("ok", False)
        assert (event.outcome, event.estimated) == (UsageOutcome.OK, False)
    (read,) = at_once(ask(webs[1].url, "GET", f"/v1/streams/{detached}/events", caller.headers))
    assert text_of(read.events, Dialect.OPENAI) == whole


def test_a_non_streaming_call_is_closed_when_its_client_disconnects(
    desk: Desk, caller: Caller, webs: list[Web]
) -> None:
    async def hang_up() -> None:
        asking = asyncio.create_task(chat(webs[0], caller, body(desk, ENDLESS, stream=False)))
        await wait_until(desk.simulator.journal)
        asking.cancel()
        await asyncio.wait([asking])

    at_once(hang_up())

    ((entry, event),) = caller.settled().values()
    assert entry["client_disconnected"]
    assert (event.outcome, event.estimated) == (UsageOutcome.CANCELED, True)


def test_a_canceled_stream_is_closed_upstream_and_ends_in_an_error(desk: Desk, caller: Caller, webs: list[Web]) -> None:
    async def cancel() -> tuple[Answer, Answer]:
        seen = await chat(webs[0], caller, body(desk, ENDLESS), until=b"data")
        stream_id = seen.events[-1].stream if seen.events else ""
        reading = asyncio.create_task(read_on(webs[0], caller, seen))
        canceled = await ask(webs[1].url, "DELETE", f"/v1/streams/{stream_id}", caller.headers)
        return canceled, await reading

    ((canceled, rest),) = at_once(cancel())

    assert (canceled.status, canceled.json()["canceled"]) == (202, True)
    assert not has_clean_end(rest.events, Dialect.OPENAI)
    assert "stream_canceled" in rest.events[-1].data
    ((entry, event),) = caller.settled().values()
    assert (entry["client_disconnected"], event.outcome) == (True, UsageOutcome.CANCELED)


def test_usage_records_match_the_provider_s_journal_after_mixed_traffic(
    desk: Desk, caller: Caller, webs: list[Web]
) -> None:
    here, there = webs
    mix: list[Any] = []
    for number in range(6):
        word, key = f"Say {number}.", f"key-{number}"
        mix += [
            chat(here, caller, body(desk, SHORT), until=b"data"),
            chat(there, caller, body(desk, ENDLESS), until=b"data"),
            chat(here, caller, body(desk, CUT)),
            chat(there, caller, body(desk, CUT, stream=False)),
            chat(here, caller, body(desk, SILENT)),
            chat(here, caller, body(desk, DOWN, FALLBACK)),
            chat(there, caller, body(desk, DOWN, FALLBACK, stream=False, word=word)),
            *(chat(web, caller, body(desk, SHORT), idempotency_key=f"streamed-{key}") for web in webs),
            *(chat(web, caller, body(desk, QUICK, stream=False, word=word), idempotency_key=key) for web in webs),
            _start_and_cancel(desk, caller, webs),
        ]
    at_once(*mix)
    kept = body(desk, QUICK, stream=False, word="Once.")
    answers = [at_once(chat(web, caller, kept))[0] for web in (here, there, here)]

    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "HIT"]
    # One call per idempotency key; two per failover; per cut complete answer, one for each attempt.
    accounts = caller.settled(cached=2)
    outcomes = {
        outcome: [event for _, event in accounts.values() if event.outcome == outcome] for outcome in UsageOutcome
    }
    assert {event.estimated for event in outcomes[UsageOutcome.OK] if "drop_usage" not in event.upstream_model} == {
        False
    }
    assert len(outcomes[UsageOutcome.CANCELED]) >= 12
    assert not outcomes[UsageOutcome.LOST]


async def _start_and_cancel(desk: Desk, caller: Caller, webs: list[Web]) -> None:
    started = await ask(webs[0].url, "POST", "/v1/streams", caller.headers, body(desk, ENDLESS))
    canceled = await ask(webs[1].url, "DELETE", f"/v1/streams/{started.json()['id']}", caller.headers)
    assert (started.status, canceled.status) == (202, 202), canceled.raw

"""Providers that cut answers at any point: the caller gets an error of its dialect and never a truncated answer."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from providers.types import Dialect
from tests.api.live.processes.fleet import PROVIDERS, Caller, Desk
from tests.api.live.processes.wire import Answer, ask, at_once, error_in, has_clean_end, text_of

DELTAS = 4
PATHS = {Dialect.OPENAI: "/v1/chat/completions", Dialect.ANTHROPIC: "/v1/messages"}
#: Before any byte, between all deltas, after the last one, and where only the end marker is missing.
FAULTS = [
    *(f"deltas={DELTAS},cut_after_n={n},cut={how}" for n, how in product(range(DELTAS + 1), ("fin", "rst"))),
    *(f"deltas={DELTAS},error_after_n={n}" for n in range(DELTAS + 1)),
    f"deltas={DELTAS},drop_done",
]
BEFORE_THE_FIRST_TOKEN = ("cut_after_n=0", "error_after_n=0")


@dataclass(frozen=True, slots=True)
class Case:
    provider: Dialect
    fault: str
    dialect: Dialect

    @property
    def is_before_the_first_token(self) -> bool:
        return any(word in self.fault for word in BEFORE_THE_FIRST_TOKEN)


CASES = [Case(*each) for each in product(PROVIDERS, FAULTS, PROVIDERS)]

#: The number of events of a stream with pings, and how many of them precede the first delta.
#: OpenAI: role, deltas, pings, finish, usage, [DONE].
#: Anthropic: message_start, content_block_start, ping, deltas, pings, content_block_stop, message_delta, message_stop.
EVENTS = {Dialect.OPENAI: DELTAS + 6, Dialect.ANTHROPIC: DELTAS + 8}
BEGINNING = {Dialect.OPENAI: 1, Dialect.ANTHROPIC: 3}


@dataclass(frozen=True, slots=True)
class EventCase:
    """A stream that is cut after this number of events, of any kind."""

    provider: Dialect
    events: int
    dialect: Dialect

    @property
    def place(self) -> tuple[Dialect, str]:
        return self.provider, f"deltas={DELTAS},ping_every=2,cut_after_events={self.events}"


EVENT_CASES = [
    EventCase(provider, events, dialect)
    for provider, dialect in product(PROVIDERS, PROVIDERS)
    for events in range(EVENTS[provider] + 1)
]


@pytest.fixture(scope="module")
def routes(desk: Desk) -> None:
    faulty = list(product(PROVIDERS, FAULTS))
    desk.make_routes([[each] for each in faulty])
    desk.make_routes([[place] for place in dict.fromkeys(case.place for case in EVENT_CASES)])
    desk.make_routes([[(provider, fault), (other(provider), "deltas=4")] for provider, fault in faulty])
    desk.webs(1)


def other(provider: Dialect) -> Dialect:
    return next(each for each in PROVIDERS if each is not provider)


async def post(desk: Desk, caller: Caller, dialect: Dialect, model: str, *, stream: bool) -> Answer:
    body: dict[str, Any] = {"model": model, "stream": stream, "max_tokens": 64}
    body["messages"] = [{"role": "user", "content": "Be cut off."}]
    headers = {**caller.headers, "anthropic-version": "2023-06-01"}
    return await ask(desk.url, "POST", PATHS[dialect], headers, body)


def test_a_stream_cut_at_any_point_ends_in_an_error_of_the_dialect(desk: Desk, caller: Caller, routes: None) -> None:
    answers = at_once(
        *(post(desk, caller, case.dialect, desk.model((case.provider, case.fault)), stream=True) for case in CASES)
    )

    for case, answer in zip(CASES, answers, strict=True):
        assert answer.is_whole, case
        if case.is_before_the_first_token:
            assert answer.status in (502, 503, 529), (case, answer.raw)
            assert answer.json()["error"]["message"], case
        else:
            assert answer.status == 200, (case, answer.raw)
            assert text_of(answer.events, case.dialect), case
            assert error_in(answer.events, case.dialect) is not None, (case, answer.body)
            assert not has_clean_end(answer.events, case.dialect), case
    caller.settled()


def test_a_stream_cut_after_any_event_is_an_error_with_correct_usage(desk: Desk, caller: Caller, routes: None) -> None:
    answers = at_once(*(post(desk, caller, case.dialect, desk.model(case.place), stream=True) for case in EVENT_CASES))

    for case, answer in zip(EVENT_CASES, answers, strict=True):
        assert answer.is_whole, case
        if case.events <= BEGINNING[case.provider]:
            assert answer.status == 502, (case, answer.raw)
            assert answer.json()["error"]["message"], case
        else:
            # With the end marker, the stream is complete.
            is_cut = case.events < EVENTS[case.provider]
            assert answer.status == 200, (case, answer.raw)
            assert (error_in(answer.events, case.dialect) is not None) is is_cut, (case, answer.body)
            assert has_clean_end(answer.events, case.dialect) is not is_cut, case
    calls = caller.settled().values()
    # Some calls were retried, because no client had received an event yet.
    assert len(calls) >= len(EVENT_CASES)
    for entry, event in calls:
        assert event.estimated is not entry["usage_reported"], entry


def test_a_cut_complete_answer_is_an_error(desk: Desk, caller: Caller, routes: None) -> None:
    cases = [case for case in CASES if "drop_done" not in case.fault]

    answers = at_once(
        *(post(desk, caller, case.dialect, desk.model((case.provider, case.fault)), stream=False) for case in cases)
    )

    for case, answer in zip(cases, answers, strict=True):
        assert answer.is_whole, case
        assert answer.status >= 500, (case, answer.raw)
        assert answer.json()["error"]["message"], case
    caller.settled()


def test_failover_before_the_first_token_is_invisible_to_the_client(desk: Desk, caller: Caller, routes: None) -> None:
    cases = [case for case in CASES if case.is_before_the_first_token]
    combinations = list(product(cases, (True, False)))

    answers = at_once(
        *(
            post(
                desk,
                caller,
                case.dialect,
                desk.model((case.provider, case.fault), (other(case.provider), "deltas=4")),
                stream=stream,
            )
            for case, stream in combinations
        )
    )

    for (case, stream), answer in zip(combinations, answers, strict=True):
        assert (answer.status, answer.is_whole) == (200, True), (case, answer.raw)
        assert not stream or has_clean_end(answer.events, case.dialect), case
    caller.settled()

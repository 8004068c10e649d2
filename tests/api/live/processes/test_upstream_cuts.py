"""Providers that break off anywhere: the caller is told in its dialect, and never takes a part for the whole."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from providers.types import Dialect
from tests.api.live.processes.fleet import PROVIDERS, Caller, Desk
from tests.api.live.processes.wire import Answer, ask, at_once, error_in, has_clean_end, text_of

DELTAS = 4
PATHS = {Dialect.OPENAI: "/v1/chat/completions", Dialect.ANTHROPIC: "/v1/messages"}
#: Before any byte, between all deltas, behind the last one, and where only the word for the end is missing.
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


@pytest.fixture(scope="module")
def routes(desk: Desk) -> None:
    faulty = list(product(PROVIDERS, FAULTS))
    desk.make_routes([[each] for each in faulty])
    desk.make_routes([[(provider, fault), (other(provider), "deltas=4")] for provider, fault in faulty])
    desk.webs(1)


def other(provider: Dialect) -> Dialect:
    return next(each for each in PROVIDERS if each is not provider)


async def post(desk: Desk, caller: Caller, dialect: Dialect, model: str, *, stream: bool) -> Answer:
    body: dict[str, Any] = {"model": model, "stream": stream, "max_tokens": 64}
    body["messages"] = [{"role": "user", "content": "Be cut off."}]
    headers = {**caller.headers, "anthropic-version": "2023-06-01"}
    return await ask(desk.url, "POST", PATHS[dialect], headers, body)


def test_a_stream_that_is_cut_anywhere_ends_in_an_error_of_the_dialect(
    desk: Desk, caller: Caller, routes: None
) -> None:
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


def test_a_whole_answer_that_is_cut_is_an_error(desk: Desk, caller: Caller, routes: None) -> None:
    cases = [case for case in CASES if "drop_done" not in case.fault]

    answers = at_once(
        *(post(desk, caller, case.dialect, desk.model((case.provider, case.fault)), stream=False) for case in cases)
    )

    for case, answer in zip(cases, answers, strict=True):
        assert answer.is_whole, case
        assert answer.status >= 500, (case, answer.raw)
        assert answer.json()["error"]["message"], case
    caller.settled()


def test_before_the_first_token_the_next_provider_answers_and_nobody_sees_it(
    desk: Desk, caller: Caller, routes: None
) -> None:
    cases = [case for case in CASES if case.is_before_the_first_token]
    asked = list(product(cases, (True, False)))

    answers = at_once(
        *(
            post(
                desk,
                caller,
                case.dialect,
                desk.model((case.provider, case.fault), (other(case.provider), "deltas=4")),
                stream=stream,
            )
            for case, stream in asked
        )
    )

    for (case, stream), answer in zip(asked, answers, strict=True):
        assert (answer.status, answer.is_whole) == (200, True), (case, answer.raw)
        assert not stream or has_clean_end(answer.events, case.dialect), case
    caller.settled()

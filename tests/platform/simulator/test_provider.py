"""Whose turn a fault is: scripts, outcome lists, times, overload, rate limits."""

import re
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.simulator_process import SimulatorProcess

MODEL = "gpt-4o-mini"


def ask(http: httpx.Client, model: str = MODEL, text: str = "Hello", key: str = "a", **headers: str) -> int | str:
    """The status of the answer, or the name of what went wrong with the connection."""
    try:
        answer = http.post(
            "/v1/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": text}]},
            headers={"authorization": f"Bearer {key}", **headers},
        )
    except httpx.TransportError as error:
        return type(error).__name__
    return answer.status_code


def test_a_script_is_followed_and_then_all_is_well(http: httpx.Client, simulator: SimulatorProcess) -> None:
    simulator.script(MODEL, ["503", "cut:0", "rst:0", "html_502", "ok", "429"])

    seen = [ask(http) for _ in range(8)]

    assert seen == [503, "RemoteProtocolError", "ReadError", 502, 200, 429, 200, 200]
    assert [entry["outcome"] for entry in simulator.journal()] == [
        "error", "cut", "rst", "error", "ok", "error", "ok", "ok",
    ]  # fmt: skip


def test_a_script_meets_its_model_whatever_its_controls_and_no_other(
    http: httpx.Client, simulator: SimulatorProcess
) -> None:
    simulator.script(MODEL, ["503"])

    assert ask(http, "gpt-4o") == 200
    assert ask(http, f"{MODEL}@tokens=3") == 503


def test_a_script_meets_its_key_and_the_most_particular_goes_first(
    http: httpx.Client, simulator: SimulatorProcess
) -> None:
    simulator.script(None, ["500"], key="mine")
    simulator.script(MODEL, ["503"])
    simulator.script(MODEL, ["504"], key="mine")

    assert [ask(http, key="mine") for _ in range(4)] == [504, 503, 500, 200]
    assert ask(http, key="yours") == 200


def test_a_script_can_be_read_replaced_and_cleared(http: httpx.Client, simulator: SimulatorProcess) -> None:
    simulator.script(MODEL, ["503:2", "cut:3", "stall"])
    [script] = simulator.ask("GET", "/__sim/script")["scripts"]
    assert script == {"model": MODEL, "key_hash": None, "outcomes": ["503:2", "cut:3", "stall"]}

    simulator.script(MODEL, ["500"])
    assert ask(http) == 500

    simulator.script(MODEL, ["500"])
    simulator.clear()
    assert ask(http) == 200


@pytest.mark.parametrize(
    "body",
    [
        {"outcomes": ["503"]},
        {"model": "m", "outcomes": ["explode"]},
        {"model": "m", "outcomes": ["200"]},
        {"model": "m", "outcomes": "503"},
        {"model": "m", "outcome": ["503"]},
        [],
    ],
)
def test_a_script_that_makes_no_sense_is_refused(http: httpx.Client, body: Any) -> None:
    answer = http.put("/__sim/script", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_scripts_meet_the_other_dialect_and_embeddings(
    simulator: SimulatorProcess, anthropic: Anthropic, openai: OpenAI
) -> None:
    simulator.script("claude-haiku-4-5", ["529"])
    simulator.script("text-embedding-3-small", ["500"])

    with pytest.raises(Exception, match="overloaded_error"):
        anthropic.messages.create(model="claude-haiku-4-5", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(Exception, match="server had an error"):
        openai.embeddings.create(model="text-embedding-3-small", input="x")


def test_an_outcome_list_in_the_name_or_a_header_is_followed_for_each_key(http: httpx.Client) -> None:
    listed = f"{MODEL}@outcomes=429|503|ok"

    assert [ask(http, listed, key="one") for _ in range(4)] == [429, 503, 200, 200]
    assert [ask(http, listed, key="two") for _ in range(2)] == [429, 503]
    assert [ask(http, **{"x-sim-outcomes": "500,ok"}) for _ in range(3)] == [500, 200, 200]


def test_times_counts_the_attempts_of_each_body(http: httpx.Client, simulator: SimulatorProcess) -> None:
    model = f"{MODEL}@status=503,times=2"

    assert [ask(http, model, "one") for _ in range(4)] == [503, 503, 200, 200]
    assert [ask(http, model, "two") for _ in range(3)] == [503, 503, 200]
    assert [entry["attempt"] for entry in simulator.journal()] == [1, 2, 3, 4, 1, 2, 3]


def test_overload_is_the_same_share_every_time(http: httpx.Client, simulator: SimulatorProcess) -> None:
    def overloaded() -> list[int | str]:
        simulator.clear()
        return [ask(http, f"{MODEL}@overload=30", str(number)) for number in range(60)]

    first, second = overloaded(), overloaded()

    assert first == second
    assert 8 <= first.count(503) <= 28
    assert set(first) == {200, 503}


def test_overload_gives_a_retry_another_chance(http: httpx.Client) -> None:
    assert 200 in [ask(http, f"{MODEL}@overload=60") for _ in range(20)]


def test_a_request_limit_has_true_headers_and_says_when(http: httpx.Client) -> None:
    limited = {"x-sim-rate-limit": "2", "authorization": "Bearer a"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}

    answers = [http.post("/v1/chat/completions", json=body, headers=limited) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert re.fullmatch(r"(1m)?[\d.]+s|1m0s", answers[2].headers["x-ratelimit-reset-requests"])
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    error = answers[2].json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "Limit 2, Used 2" in error["message"]


def test_a_token_limit_charges_the_prompt_and_the_most_output(http: httpx.Client) -> None:
    limited = {"x-sim-token-limit": "1000", "authorization": "Bearer a"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 700}

    answers = [http.post("/v1/chat/completions", json=body, headers=limited) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert int(answers[0].headers["x-ratelimit-remaining-tokens"]) == 1000 - 700 - 8
    assert answers[1].json()["error"]["type"] == "tokens"


def test_a_limit_is_one_keys_and_one_models(http: httpx.Client) -> None:
    limited = {"x-sim-rate-limit": "1"}

    assert [ask(http, **limited), ask(http, **limited)] == [200, 429]
    assert ask(http, key="other", **limited) == 200
    assert ask(http, model="gpt-4o", **limited) == 200


def test_anthropics_limit_resets_at_a_time(http: httpx.Client) -> None:
    headers = {"x-api-key": "a", "anthropic-version": "2023-06-01", "x-sim-rate-limit": "1"}
    body = {"model": "claude", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}

    answers = [http.post("/v1/messages", json=body, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answers[1].headers["anthropic-ratelimit-requests-reset"])


def test_a_header_wins_over_the_name_and_may_be_written_with_underscores(http: httpx.Client) -> None:
    assert ask(http, f"{MODEL}@status=503", **{"x-sim-status": "500"}) == 500
    assert ask(http, **{"x-sim-cut_after_n": "0"}) == "RemoteProtocolError"


def test_a_redirect_leads_elsewhere(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/chat/completions",
        json={"model": f"{MODEL}@status=307", "messages": [{"role": "user", "content": "x"}]},
        headers={"authorization": "Bearer a"},
    )

    assert (answer.status_code, answer.headers["location"]) == (307, "/v1/elsewhere")

"""The journal: in the running simulator, and in its file across a kill."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from simulator.journal import CallOutcome, Journal, JournalEntry
from tests.simulator_process import SimulatorProcess, start_simulator

MODEL = "gpt-4o-mini"
BODY: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def post(http: httpx.Client, **headers: str) -> httpx.Response:
    return http.post("/v1/chat/completions", json=BODY, headers={"authorization": "Bearer sk-1", **headers})


def test_an_entry_tells_what_was_asked_and_what_was_served(http: httpx.Client, simulator: SimulatorProcess) -> None:
    answer = post(http, **{"x-client-request-id": "mine", "idempotency-key": "once"})

    [entry] = simulator.journal()
    assert entry["id"] == answer.headers["x-request-id"]
    assert entry["answer_id"] == answer.json()["id"]
    assert entry["body_sha256"] == hashlib.sha256(answer.request.content).hexdigest()
    assert entry["key_hash"] == hashlib.sha256(b"sk-1").hexdigest()
    assert (entry["client_request_id"], entry["idempotency_key"]) == ("mine", "once")
    assert (entry["dialect"], entry["path"], entry["model"]) == ("openai", "/v1/chat/completions", MODEL)
    assert (entry["status"], entry["outcome"], entry["stream"], entry["attempt"]) == (200, "ok", False, 1)
    assert (entry["usage_reported"], entry["client_disconnected"]) == (True, False)
    assert 0 < entry["started_at"] <= entry["finished_at"]
    assert "sk-1" not in json.dumps(simulator.journal())


def test_tokens_equal_the_usage_the_client_was_told(
    simulator: SimulatorProcess, openai: OpenAI, anthropic: Anthropic
) -> None:
    controls = "cached_tokens=3,cache_write_tokens=1,reasoning_tokens=9"
    told = openai.chat.completions.create(**{**BODY, "model": f"{MODEL}@{controls}"}).usage
    also = anthropic.messages.create(
        model=f"claude@{controls}", max_tokens=90, messages=[{"role": "user", "content": "Hello"}]
    ).usage

    first, second = simulator.journal()
    assert (first["input_tokens"], first["output_tokens"]) == (told.prompt_tokens, told.completion_tokens)
    assert second["input_tokens"] == also.input_tokens + 3 + 1
    assert second["output_tokens"] == also.output_tokens
    for entry in (first, second):
        assert (entry["cached_tokens"], entry["cache_write_tokens"], entry["reasoning_tokens"]) == (3, 1, 9)


def test_the_journal_can_be_asked_for_a_part(http: httpx.Client, simulator: SimulatorProcess) -> None:
    post(http, **{"x-client-request-id": "a"})
    post(http, **{"x-client-request-id": "b"})
    http.get("/v1/models", headers={"authorization": "Bearer a"})
    first, second, third = simulator.journal()

    assert simulator.journal(after=first["seq"]) == [second, third]
    assert simulator.journal(model=MODEL) == [first, second]
    assert simulator.journal(request_id="b") == [second]
    assert simulator.ask("GET", "/__sim/journal?limit=1")["entries"] == [third]


def test_emptying_it_starts_attempts_again_but_not_numbers(http: httpx.Client, simulator: SimulatorProcess) -> None:
    post(http)
    before = simulator.journal()[0]
    simulator.clear()
    assert simulator.journal() == []

    post(http)

    [after] = simulator.journal()
    assert after["attempt"] == 1
    assert after["seq"] > before["seq"]


def test_refused_requests_are_journaled_too(http: httpx.Client, simulator: SimulatorProcess) -> None:
    http.post("/v1/chat/completions", content=b"nonsense")

    [entry] = simulator.journal()
    assert (entry["status"], entry["outcome"], entry["model"], entry["key_hash"]) == (401, "error", "", "")


def test_the_simulators_own_pages_are_not(http: httpx.Client, simulator: SimulatorProcess) -> None:
    for path in ("/", "/__sim/health", "/__sim/journal", "/__sim/nothing", "/favicon.ico"):
        http.get(path)

    assert simulator.journal() == []


def test_the_file_has_a_line_for_the_start_and_one_for_the_end(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with start_simulator(journal=file) as simulator, httpx.Client(base_url=simulator.url) as http:
        for number in range(1, 31):
            post(http)
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            # Both are there before the client has its answer.
            assert [(line["seq"], line["outcome"]) for line in lines[-2:]] == [(number, "running"), (number, "ok")]


def test_a_kill_loses_nothing_that_was_answered_or_begun(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with start_simulator(journal=file) as simulator, httpx.Client(base_url=simulator.url) as http:
        post(http)
        stall = {"authorization": "Bearer a", "x-sim-stall-after-n": "2"}
        with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}, headers=stall) as stalled:
            pieces = stalled.iter_raw()
            assert next(pieces)
            simulator.kill()
    with file.open("a") as torn:
        torn.write('{"seq": 99, "half a li')

    with start_simulator(journal=file) as simulator, httpx.Client(base_url=simulator.url) as http:
        post(http)
        entries = simulator.journal()
    with start_simulator(journal=file) as simulator:
        assert len(simulator.journal()) == 3

    assert [(entry["seq"], entry["outcome"]) for entry in entries] == [(1, "ok"), (2, "lost"), (3, "ok")]
    assert [entry["attempt"] for entry in entries] == [1, 1, 2]


def entry_of(journal: Journal, body: str) -> JournalEntry:
    entry = JournalEntry(
        seq=journal.next_seq(),
        id="req_1",
        dialect="openai",
        path="/",
        model="m",
        key_hash="",
        body_sha256=body,
        client_request_id=None,
        idempotency_key=None,
        stream=False,
        attempt=journal.attempt_of(body),
        started_at=1.0,
    )
    journal.start(entry)
    return entry


def test_memory_keeps_the_newest_and_says_how_many_are_gone() -> None:
    journal = Journal(max_entries=2)

    for body in ("a", "a", "b", "c"):
        journal.finish(entry_of(journal, body), CallOutcome.OK)

    assert [entry.seq for entry in journal.entries()] == [3, 4]
    assert journal.dropped == 2
    assert journal.attempt_of("a") == 1
    assert journal.attempt_of("b") == 2


def test_a_line_torn_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text('{"seq": 7, "half a li')
    journal = Journal(file)
    entry_of(journal, "a")
    journal.close()

    again = Journal(file)
    again.close()

    assert [(entry.body_sha256, entry.outcome) for entry in again.entries()] == [("a", CallOutcome.LOST)]


def test_attempts_are_counted_on_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    for _ in range(2):
        journal.finish(entry_of(journal, "a"), CallOutcome.OK)
    journal.close()

    again = Journal(file)
    again.close()

    assert again.attempt_of("a") == 3


def test_emptying_the_journal_empties_its_file(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    journal.finish(entry_of(journal, "a"), CallOutcome.OK)

    journal.clear()
    journal.finish(entry_of(journal, "b"), CallOutcome.OK)
    journal.close()

    assert [json.loads(line)["body_sha256"] for line in file.read_text().splitlines()] == ["b", "b"]


@pytest.mark.parametrize("query", ["after=x", "limit=-1"])
def test_a_number_that_is_none_is_refused(http: httpx.Client, query: str) -> None:
    assert http.get(f"/__sim/journal?{query}").status_code == 400

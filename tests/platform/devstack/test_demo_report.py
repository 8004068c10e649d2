from dataclasses import replace
from typing import Any

import pytest

from devstack.card import DEMO_MODEL
from devstack.demo import ARTICLE, EXPECTED
from devstack.demo_report import (
    DemoCall,
    DemoJob,
    JournalEntry,
    describe_call,
    describe_usage,
    excerpt,
    find_mismatches,
    to_job,
    to_journal,
)
from devstack.demo_site import ROUTES

REFUSED = DemoCall("sim-openai", "gpt-4o-mini", "error", 503, "overloaded", False, 0, 0, "0.000000", 4)
CUT = replace(REFUSED, http_status=None, error_kind="interrupted", input_tokens=4000, output_tokens=12)
ANSWERED = DemoCall("sim-anthropic", "claude-haiku-4-5", "ok", 200, "", True, 4100, 300, "0.005600", 31)
JOB = DemoJob("job_1", "succeeded", "", (REFUSED, CUT, ANSWERED), "An answer.", 4400, "0.005600")
JOURNAL = (
    JournalEntry("gpt-4o-mini", "error", 503, 0, 0),
    JournalEntry("gpt-4o-mini", "cut", 200, 4000, 9),
    JournalEntry("claude-haiku-4-5", "ok", 200, 4100, 300),
)


def job_with(*calls: DemoCall, **changes: Any) -> DemoJob:
    return replace(JOB, calls=calls, **changes)


def test_an_expected_job_has_no_mismatches() -> None:
    assert find_mismatches(JOB, JOURNAL, EXPECTED) == []


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        (replace(JOB, state="failed", error="exhausted"), "the job is failed (exhausted), not succeeded"),
        (job_with(REFUSED, ANSWERED), "the calls went to"),
        (job_with(REFUSED, CUT, replace(ANSWERED, provider="sim-openai")), "the calls went to"),
        (job_with(REFUSED, replace(ANSWERED, provider="sim-openai"), ANSWERED), "the calls went to"),
        (job_with(replace(REFUSED, http_status=500), CUT, ANSWERED), "the first call failed with 500, not 503"),
        (job_with(REFUSED, REFUSED, ANSWERED), "the second call failed as overloaded, where its connection"),
        (job_with(REFUSED, replace(CUT, billable=True), ANSWERED), "2 usage events are billable, not one"),
        (job_with(REFUSED, CUT, replace(ANSWERED, billable=False)), "0 usage events are billable, not one"),
        (
            job_with(REFUSED, replace(CUT, billable=True), replace(ANSWERED, billable=False)),
            "the billed call is not the successful one",
        ),
        (replace(JOB, tokens=4401), "the job reports 4401 tokens"),
        (replace(JOB, cost_usd="0.000000"), "the job cost 0.000000 USD"),
        (replace(JOB, answer=""), "the answer is empty"),
    ],
)
def test_every_mismatch_is_reported(job: DemoJob, complaint: str) -> None:
    assert any(complaint in found for found in find_mismatches(job, JOURNAL, EXPECTED))


@pytest.mark.parametrize(
    ("journal", "complaint"),
    [
        (JOURNAL[:2], "journal"),
        ((*JOURNAL, JOURNAL[2]), "journal"),
        ((*JOURNAL[:2], replace(JOURNAL[2], output_tokens=301)), "the simulator served 4100 + 301 tokens"),
    ],
)
def test_a_different_journal_is_a_mismatch(journal: tuple[JournalEntry, ...], complaint: str) -> None:
    (found,) = find_mismatches(JOB, journal, EXPECTED)

    assert complaint in found


def test_a_job_is_parsed_from_the_api() -> None:
    call = {
        "call": 1,
        "provider": "sim-anthropic",
        "upstream_model": "claude-haiku-4-5",
        "outcome": "ok",
        "http_status": 200,
        "error_kind": None,
        "billable": True,
        "input_tokens": 4100,
        "output_tokens": 300,
        "cost_usd": "0.005600",
        "duration_ms": 31,
    }
    found = {
        "id": "job_1",
        "state": "succeeded",
        "result": {"choices": [{"message": {"role": "assistant", "content": "An answer."}}]},
        "error": None,
        "attempts": [{"number": 1, "calls": []}, {"number": 2, "calls": [call]}],
        "usage": {"input_tokens": 4100, "output_tokens": 300, "total_tokens": 4400},
        "cost_usd": "0.005600",
    }

    assert to_job(found) == job_with(ANSWERED)


def test_a_queued_job_has_neither_answer_nor_usage() -> None:
    found: dict[str, Any] = {
        "id": "job_1",
        "state": "queued",
        "result": None,
        "error": {"code": "server_error"},
        "attempts": [],
        "usage": None,
        "cost_usd": None,
    }

    assert to_job(found) == DemoJob("job_1", "queued", "server_error", (), "", 0, "None")


def test_the_journal_is_parsed_from_the_simulator() -> None:
    entry = {"model": "m", "outcome": "ok", "status": 200, "input_tokens": 1, "output_tokens": 2, "seq": 1}

    assert to_journal({"entries": [entry], "dropped": 0}) == (JournalEntry("m", "ok", 200, 1, 2),)


def test_calls_are_described_in_words() -> None:
    assert describe_call(REFUSED) == "sim-openai / gpt-4o-mini: failed, overloaded (HTTP 503) after 4 ms"
    assert describe_call(CUT) == "sim-openai / gpt-4o-mini: failed, interrupted after 4 ms"
    assert describe_call(ANSWERED) == "sim-anthropic / claude-haiku-4-5: answered (HTTP 200) after 31 ms"
    assert "4100 in, 300 out" in describe_usage(ANSWERED)
    assert describe_usage(ANSWERED).endswith("0.0056 USD     billed")
    assert describe_usage(CUT).endswith("0 USD          not billed")


@pytest.mark.parametrize(
    ("text", "shown"), [("short", "short"), ("two\n\nlines", "two lines"), ("one two three", "one two…")]
)
def test_an_excerpt_is_one_line_and_ends_between_words(text: str, shown: str) -> None:
    assert excerpt(text, 12) == shown


def test_the_expected_route_is_the_seeded_one() -> None:
    (failing, failing_model), (answering, _) = ROUTES[DEMO_MODEL]

    assert (EXPECTED.failing, EXPECTED.failing_model, EXPECTED.answering) == (failing, failing_model, answering)


def test_the_article_is_real_text_of_a_few_thousand_words_with_its_source() -> None:
    assert 2000 <= len(ARTICLE.read_text().split()) <= 4000
    source = (ARTICLE.parent / "README.md").read_text()
    assert "Adam Smith" in source
    assert "1776" in source

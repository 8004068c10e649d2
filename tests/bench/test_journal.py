"""The simulator's journal, as a bench reads it."""

from pathlib import Path

from simulator.journal import CallOutcome, Journal, JournalEntry
from tests.bench.journal import tail


def entry(seq: int) -> JournalEntry:
    return JournalEntry(seq, f"req_{seq}", "openai", "/v1", "gpt", "", "", None, None, False, 1, started_at=float(seq))


def test_the_calls_that_end_are_counted_as_they_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    before, first, second = entry(1), entry(2), entry(3)
    journal.start(before)
    journal.finish(before, CallOutcome.OK)
    calls = tail(tmp_path / "journal.jsonl")

    journal.start(first)
    journal.start(second)
    seen = [calls.read()]
    journal.finish(first, CallOutcome.OK)
    journal.finish(second, CallOutcome.CUT)
    seen.append(calls.read())

    assert seen == [0, 2]
    assert calls.begun == 2
    assert [span.began_at for span in calls.spans()] == [2.0]


def test_a_line_that_is_only_half_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.touch()
    calls = tail(path)
    line = b'{"seq":1,"id":"r","dialect":"openai","path":"/","model":"m","key_hash":"","body_sha256":"",' \
        b'"client_request_id":null,"idempotency_key":null,"stream":false,"attempt":1,"started_at":1.0,' \
        b'"finished_at":2.0,"outcome":"ok"}\n'  # fmt: skip

    path.write_bytes(line[:40])
    seen = [calls.read()]
    path.write_bytes(line)
    seen.append(calls.read())

    assert seen == [0, 1]

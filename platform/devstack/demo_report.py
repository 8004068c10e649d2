"""Parses what the demo reads from the desk and the simulator, and checks it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

ENDED = ("succeeded", "failed", "canceled", "expired")
OPEN = "open"
#: Error kind of a cut connection.
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class DemoCall:
    """One usage event of the job."""

    provider: str
    upstream_model: str
    outcome: str
    http_status: int | None
    #: Kind of the error (`providers.errors`); empty if there was none.
    error_kind: str
    billable: bool
    input_tokens: int
    output_tokens: int
    cost_usd: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class DemoJob:
    id: str
    state: str
    error: str
    calls: tuple[DemoCall, ...]
    answer: str
    tokens: int
    cost_usd: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One call as the simulator saw it."""

    model: str
    outcome: str
    status: int | None
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ExpectedCalls:
    """The route of the demo: the provider that fails, how it fails, and the provider that answers."""

    failing: str
    failing_model: str
    #: Scripted outcomes of the first calls.
    faults: tuple[str, ...]
    answering: str


def to_job(found: dict[str, Any]) -> DemoJob:
    """Parse the response of `GET /v1/jobs/{id}`."""
    calls = [_to_call(call) for attempt in found["attempts"] for call in attempt["calls"]]
    return DemoJob(
        id=found["id"],
        state=found["state"],
        error=str((found["error"] or {}).get("code", "")),
        calls=tuple(calls),
        answer=_answer_text(found["result"]),
        tokens=int((found["usage"] or {}).get("total_tokens", 0)),
        cost_usd=str(found["cost_usd"]),
    )


def to_journal(found: dict[str, Any]) -> tuple[JournalEntry, ...]:
    """Parse the response of `GET /__sim/journal`."""
    return tuple(
        JournalEntry(
            entry["model"], entry["outcome"], entry["status"], int(entry["input_tokens"]), int(entry["output_tokens"])
        )
        for entry in found["entries"]
    )


def describe_call(call: DemoCall) -> str:
    """Describe the outcome of a call in one line."""
    what = "answered" if call.outcome == "ok" else f"failed, {call.error_kind or call.outcome}"
    status = f" (HTTP {call.http_status})" if call.http_status else ""
    took = "" if call.duration_ms is None else f" after {call.duration_ms} ms"
    return f"{call.provider} / {call.upstream_model}: {what}{status}{took}"


def describe_usage(call: DemoCall) -> str:
    """Describe the tokens and the cost of a call in one line."""
    tokens = f"{call.input_tokens} in, {call.output_tokens} out"
    billed = "billed" if call.billable else "not billed"
    return f"{call.provider:<14} {call.outcome:<8} {tokens:<20} {dollars(call.cost_usd):<14} {billed}"


def dollars(amount: str) -> str:
    """Return an amount without trailing zeros."""
    return f"{Decimal(amount).normalize():f} USD"


def excerpt(text: str, length: int = 240) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rsplit(" ", 1)[0] + "…"


def find_mismatches(job: DemoJob, journal: tuple[JournalEntry, ...], expected: ExpectedCalls) -> list[str]:
    """Return all that is not as it must be; nothing if the job went as it should."""
    return [*_call_mismatches(job, expected), *_usage_mismatches(job), *_journal_mismatches(job, journal)]


def _call_mismatches(job: DemoJob, expected: ExpectedCalls) -> Iterator[str]:
    if job.state != "succeeded":
        yield f"the job is {job.state} ({job.error}), not succeeded"
    wanted = [(expected.failing, False)] * len(expected.faults) + [(expected.answering, True)]
    found = [(call.provider, call.outcome == "ok") for call in job.calls]
    if found != wanted:
        yield f"the calls went to {found}, not to {wanted}"
        return
    first, second, *_ = job.calls
    if first.http_status != 503:
        yield f"the first call failed with {first.http_status}, not 503"
    if second.error_kind != INTERRUPTED:
        yield f"the second call failed as {second.error_kind}, where its connection should have been cut"
    if not job.answer:
        yield "the answer is empty"


def _usage_mismatches(job: DemoJob) -> Iterator[str]:
    billed = [call for call in job.calls if call.billable]
    if len(billed) != 1:
        yield f"{len(billed)} usage events are billable, not one"
        return
    if billed[0].outcome != "ok":
        yield "the billed call is not the successful one"
    if billed[0].input_tokens + billed[0].output_tokens != job.tokens:
        yield f"the job reports {job.tokens} tokens, its billed usage event a different number"
    if float(job.cost_usd) <= 0:
        yield f"the job cost {job.cost_usd} USD"


def _journal_mismatches(job: DemoJob, journal: tuple[JournalEntry, ...]) -> Iterator[str]:
    served = [(line.model, line.outcome == "ok") for line in journal]
    recorded = [(call.upstream_model, call.outcome == "ok") for call in job.calls]
    if served != recorded:
        yield f"the simulator's journal {served} differs from the usage events {recorded}"
        return
    for line, call in zip(journal, job.calls, strict=True):
        if call.outcome == "ok" and (line.input_tokens, line.output_tokens) != (call.input_tokens, call.output_tokens):
            yield (
                f"the simulator served {line.input_tokens} + {line.output_tokens} tokens, "
                f"the usage event records {call.input_tokens} + {call.output_tokens}"
            )


def _to_call(found: dict[str, Any]) -> DemoCall:
    return DemoCall(
        provider=found["provider"],
        upstream_model=found["upstream_model"],
        outcome=found["outcome"],
        http_status=found["http_status"],
        error_kind=found["error_kind"] or "",
        billable=bool(found["billable"]),
        input_tokens=int(found["input_tokens"]),
        output_tokens=int(found["output_tokens"]),
        cost_usd=str(found["cost_usd"]),
        duration_ms=found["duration_ms"],
    )


def _answer_text(result: dict[str, Any] | None) -> str:
    if not result:
        return ""
    return str(result["choices"][0]["message"]["content"])

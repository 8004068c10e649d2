"""What must be true of the database, whatever was done to the desk. Pure; the names are those of docs/promises.md.

The campaign checks the real processes against it, the simulation (`tests.chaos.simulation`) their functions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from tests.chaos.books import AttemptRow, Books

TERMINAL = ("succeeded", "failed", "canceled", "expired")
TERMINAL_OF_BATCHES = ("completed", "failed", "expired", "cancelled")
#: jobs.worker.sweep.MAX_CRASHES, repeated on purpose: a test that reads the constant would follow its every change.
MOST_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and what broke it."""

    promise: str
    subject: str
    what: str


Invariant: TypeAlias = Callable[[Books], Iterator[Violation]]


def check(books: Books) -> list[Violation]:
    """Return every promise that the database shows as broken. Everything must have finished by now."""
    return [violation for invariant in INVARIANTS for violation in invariant(books)]


def every_job_ends(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        if job.state not in TERMINAL:
            yield Violation("lost", str(job.id), f"still {job.state} after attempt {job.attempt}")


def one_attempt_succeeds_and_it_is_the_last(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        ok = [row.number for row in books.attempts_of[job.id] if row.outcome == "ok"]
        if ok != ([job.attempt] if job.state == "succeeded" else []):
            yield Violation("fence", str(job.id), f"{job.state} in attempt {job.attempt}, attempts {ok} ended well")


def attempts_are_counted_without_gap(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        numbers = [row.number for row in books.attempts_of[job.id]]
        if numbers != list(range(1, job.attempt + 1)):
            yield Violation("fence", str(job.id), f"attempts {numbers}, and its count says {job.attempt}")


def no_attempt_stays_open(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        for row in books.attempts_of[job.id]:
            if row.ended_at is None and not (job.state == "running" and row.number == job.attempt):
                yield Violation("fence", str(job.id), f"attempt {row.number} of {job.attempt} was never ended")


def attempts_of_a_job_follow_each_other(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        rows = books.attempts_of[job.id]
        for before, after in zip(rows, rows[1:], strict=False):
            if before.ended_at is None or before.ended_at > after.started_at:
                yield Violation("fence", str(job.id), f"attempt {after.number} began before {before.number} had ended")


def errors_and_crashes_are_bounded(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        if job.error_count > job.max_attempts:
            yield Violation("attempts", str(job.id), f"{job.error_count} errors, {job.max_attempts} allowed")
        if job.crash_count > MOST_CRASHES:
            yield Violation("crash_cap", str(job.id), f"it killed {job.crash_count} workers")
        lost = [row for row in books.attempts_of[job.id] if row.outcome == "lost"]
        # A lost attempt is counted, as a crash or as an error.
        if len(lost) > job.crash_count + job.error_count:
            yield Violation(
                "crash_cap", str(job.id), f"{len(lost)} lost attempts, {job.crash_count} crashes are counted"
            )


def success_is_billed_once_and_nothing_else_is(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        billed = [row for row in books.usage_of[job.id] if row.billable]
        attempts = [row.attempt for row in billed]
        if len(billed) > 1:
            yield Violation("billed_twice", str(job.id), f"attempts {attempts} are billed")
        if attempts != ([job.attempt] if job.state == "succeeded" else []):
            yield Violation("billing", str(job.id), f"{job.state} in attempt {job.attempt}, billed: {attempts}")
        if any(row.outcome != "ok" for row in billed):
            yield Violation("billing", str(job.id), "a call is billed that did not end well")
        if (job.state == "succeeded") != job.has_result:
            yield Violation(
                "lost", str(job.id), f"{job.state}, and a result is {'' if job.has_result else 'not '}there"
            )


def every_call_s_account_is_closed(books: Books) -> Iterator[Violation]:
    for row in books.usage:
        if row.outcome == "open":
            yield Violation("accounts", row.dedupe_key, "still open")


def calls_belong_to_attempts(books: Books) -> Iterator[Violation]:
    known = {(row.job_id, row.number) for row in books.attempts}
    for row in books.usage:
        if row.job_id is not None and (row.job_id, row.attempt) not in known:
            yield Violation("accounts", row.dedupe_key, "no attempt made it")


def every_end_is_told_once(books: Books) -> Iterator[Violation]:
    for job in books.jobs:
        types = [event.type for event in books.terminal_events_of[job.id]]
        if job.batch_id is not None:
            expected: list[str] = []
        else:
            expected = [f"job.{job.state}"] if job.state in TERMINAL else []
        if len(types) > len(expected):
            yield Violation("terminal_events_double", str(job.id), f"{job.state}, told: {types}")
        elif len(types) < len(expected):
            yield Violation("terminal_events_missing", str(job.id), f"{job.state}, told: {types}")
        elif types != expected:
            yield Violation("terminal_events_wrong", str(job.id), f"{job.state}, told: {types}")


def every_batch_ends_and_counts_its_members(books: Books) -> Iterator[Violation]:
    for batch in books.batches:
        members = books.members_of[batch.id]
        completed = sum(member.state == "succeeded" for member in members)
        if batch.state not in TERMINAL_OF_BATCHES:
            yield Violation("lost", f"batch {batch.id}", f"still {batch.state}")
        elif (batch.total, batch.completed) != (len(members), completed):
            yield Violation("lost", f"batch {batch.id}", f"{batch}, with {len(members)} members, {completed} succeeded")
        types = [event.type for event in books.terminal_events_of[batch.id]]
        if len(types) > 1:
            yield Violation("terminal_events_double", f"batch {batch.id}", f"{batch.state}, told: {types}")
        elif types != [f"batch.{batch.state}"]:
            yield Violation("terminal_events_missing", f"batch {batch.id}", f"{batch.state}, told: {types}")


def every_event_is_on_its_way_to_every_endpoint(books: Books) -> Iterator[Violation]:
    for event in books.events:
        ways = len(books.deliveries_of[event.id])
        if ways != books.endpoints.get(event.site_id, 0):
            yield Violation("terminal_events_missing", str(event.id), f"{event.type} has {ways} deliveries")


def a_key_stands_for_one_job(books: Books) -> Iterator[Violation]:
    keyed = sorted(((job.site_id, job.idempotency_key) for job in books.jobs if job.idempotency_key), key=str)
    for (_, key), group in groupby(keyed):
        if (count := len(list(group))) > 1:
            yield Violation("idempotency", str(key), f"{count} jobs")


def caps_hold(books: Books) -> Iterator[Violation]:
    jobs = {job.id: job for job in books.jobs}
    for site_id, cap in books.caps.sites.items():
        rows = [row for row in books.attempts if jobs[row.job_id].site_id == site_id]
        if (most := most_at_once(rows)) > cap:
            yield Violation("caps", f"site {site_id}", f"{most} jobs ran at once, {cap} may")
    for provider, cap in books.caps.providers.items():
        rows = [row for row in books.attempts if jobs[row.job_id].provider == provider]
        if (most := most_at_once(rows)) > cap:
            yield Violation("caps", f"provider {provider}", f"{most} jobs ran at once, {cap} may")


def most_at_once(attempts: Sequence[AttemptRow]) -> int:
    """Return the largest number of concurrent attempts."""
    # A finish is stamped before its commit, so one that frees a slot is never after the start that takes the slot.
    steps = sorted(
        [(row.started_at, 1) for row in attempts] + [(row.ended_at, -1) for row in attempts if row.ended_at],
    )
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


INVARIANTS: tuple[Invariant, ...] = (
    every_job_ends,
    one_attempt_succeeds_and_it_is_the_last,
    attempts_are_counted_without_gap,
    no_attempt_stays_open,
    attempts_of_a_job_follow_each_other,
    errors_and_crashes_are_bounded,
    success_is_billed_once_and_nothing_else_is,
    every_call_s_account_is_closed,
    calls_belong_to_attempts,
    every_end_is_told_once,
    every_batch_ends_and_counts_its_members,
    every_event_is_on_its_way_to_every_endpoint,
    a_key_stands_for_one_job,
    caps_hold,
)

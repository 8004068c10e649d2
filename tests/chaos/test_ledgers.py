"""The comparison of ledgers finds what one of them lacks or has in excess."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from core.ids import to_public
from simulator.journal import CallOutcome, JournalEntry
from tests.chaos.books import AttemptRow, BatchRow, Books, Caps, DeliveryRow, EventRow, JobRow, UsageRow
from tests.chaos.clients import NOBODY_THERE, Told
from tests.chaos.invariants import most_at_once
from tests.chaos.ledgers import Ledgers, Sighting, compare
from tests.chaos.plan import BatchOrder, Order, Temper, make_plan
from tests.chaos.receiver import Received
from tests.chaos.recovery import Fault, Outage, Rescue, rescues

START = datetime(2026, 11, 21, 22, tzinfo=UTC)
SITE, WORKER, JOB, EVENT, DELIVERY = (uuid4() for _ in range(5))
PUBLIC = to_public("job", JOB)
CALL = f"{PUBLIC}:1:1"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


ORDER: Order = replace(make_plan(1, 1).orders[0], number=0, key="order-0")
ENTRY = JournalEntry(
    1, "req_1", "openai", "/v1", "gpt-4o-mini", "", "", CALL, None, True, 1, 0.0,
    finished_at=1.0, outcome=CallOutcome.OK, input_tokens=10, output_tokens=5, usage_reported=True,
)  # fmt: skip
BOOKS = Books(
    jobs=[
        JobRow(
            JOB, SITE, "succeeded", 1, 8, 0, 0, True, None, None, at(0), at(3), "order-0", "0", "", None, "sim-openai"
        )
    ],
    attempts=[AttemptRow(JOB, 1, WORKER, at(1), at(3), "ok")],
    usage=[UsageRow(CALL, JOB, 1, "ok", True, False, 10, 5, 100)],
    events=[EventRow(EVENT, SITE, "job.succeeded", JOB, True)],
    deliveries=[DeliveryRow(DELIVERY, EVENT, "delivered", 1)],
    batches=[],
    caps=Caps({}, {}),
    endpoints={SITE: 1},
)
FINE = Ledgers(
    orders=[ORDER],
    told=[Told(0, "submit", 0.0, 202, job_id=PUBLIC, state="queued")],
    journal=[ENTRY],
    books=BOOKS,
    received=[Received(0.0, to_public("evt", EVENT), "job.succeeded", PUBLIC, "bytes", "", 204)],
)


def promises(ledgers: Ledgers) -> set[str]:
    return {violation.promise for violation in compare(ledgers)}


def with_books(**changes: object) -> Ledgers:
    return replace(FINE, books=replace(BOOKS, **changes))  # type: ignore[arg-type]


def test_matching_ledgers_break_no_promise() -> None:
    assert compare(FINE) == []


JOB_ROW, ATTEMPT, USAGE, EVENT_ROW = BOOKS.jobs[0], BOOKS.attempts[0], BOOKS.usage[0], BOOKS.events[0]
GOT = FINE.received[0]


@pytest.mark.parametrize(
    ("ledgers", "promise"),
    [
        (with_books(jobs=[]), "lost"),
        (with_books(jobs=[replace(JOB_ROW, state="running", finished_at=None)]), "lost"),
        (with_books(jobs=[replace(JOB_ROW, has_result=False)]), "lost"),
        (with_books(jobs=[replace(JOB_ROW, crash_count=4)]), "crash_cap"),
        (with_books(jobs=[replace(JOB_ROW, error_count=9)]), "attempts"),
        (with_books(jobs=[JOB_ROW, replace(JOB_ROW, id=uuid4())]), "idempotency"),
        (with_books(attempts=[ATTEMPT, replace(ATTEMPT, number=2)]), "fence"),
        (with_books(attempts=[replace(ATTEMPT, ended_at=None)]), "fence"),
        (with_books(usage=[USAGE, replace(USAGE, dedupe_key=f"{PUBLIC}:1:2")]), "billed_twice"),
        (with_books(usage=[replace(USAGE, billable=False)]), "billing"),
        (with_books(usage=[]), "accounts"),
        (with_books(usage=[replace(USAGE, outcome="open", billable=False)]), "accounts"),
        (with_books(usage=[replace(USAGE, input_tokens=11)]), "accounts"),
        (with_books(events=[]), "terminal_events_missing"),
        (with_books(events=[EVENT_ROW, replace(EVENT_ROW, id=uuid4())]), "terminal_events_double"),
        (with_books(events=[replace(EVENT_ROW, type="job.failed")]), "terminal_events_wrong"),
        (with_books(deliveries=[]), "terminal_events_missing"),
        (with_books(deliveries=[DeliveryRow(DELIVERY, EVENT, "exhausted", 9)]), "terminal_events_missing"),
        (with_books(batches=[BatchRow(uuid4(), "in_progress", 3, None, None)]), "lost"),
        (with_books(batches=[BatchRow(uuid4(), "completed", 3, 3, 0)]), "lost"),
        (replace(FINE, journal=[]), "accounts"),
        (replace(FINE, journal=[ENTRY, ENTRY]), "accounts"),
        (replace(FINE, received=[]), "terminal_events_missing"),
        (replace(FINE, received=[GOT, replace(GOT, body_sha256="other")]), "webhooks"),
        (replace(FINE, received=[GOT, replace(GOT, event_id="evt_unknown")]), "webhooks"),
        (replace(FINE, received=[replace(GOT, refused="X-Sig does not match.")]), "webhooks"),
        (replace(FINE, told=[*FINE.told, Told(0, "abuse", 1.0, 202, job_id=PUBLIC)]), "idempotency"),
        (replace(FINE, told=[*FINE.told, Told(0, "cancel", 1.0, 200, job_id=PUBLIC)]), "cancel"),
        (replace(FINE, told=[Told(0, "read", 1.0, 200, "", PUBLIC, state) for state in ("failed", "queued")]), "fence"),
        (replace(FINE, told=[*FINE.told, Told(0, "final", 9.0, 404)]), "lost"),
        (replace(FINE, sightings=[Sighting(JOB, "failed", at(2), "")]), "fence"),
    ],
)  # fmt: skip
def test_a_mismatch_between_ledgers_is_a_broken_promise(ledgers: Ledgers, promise: str) -> None:
    assert promise in promises(ledgers)


BATCH, OTHER = uuid4(), uuid4()
BATCH_ID = to_public("batch", BATCH)
PAIR = BatchOrder(0, 0.0, 0, "chat", (Temper.FINE, Temper.FINE), None)
ENDED_BATCH = BatchRow(BATCH, "completed", 0, 0, 0)
LOST = AttemptRow(JOB, 1, WORKER, at(0.1), at(0.9), "lost")


def with_batch(**changes: object) -> Ledgers:
    """One batch of two was posted, and it has its results."""
    event = EventRow(uuid4(), OTHER, "batch.completed", BATCH, True)
    books = replace(BOOKS, batches=[ENDED_BATCH], events=[EVENT_ROW, event])
    lines = {BATCH_ID: ["member-0", "member-1"]}
    found = replace(FINE, books=books, batch_orders=[PAIR], batches=[(0, BATCH_ID)], results=lines)
    return replace(found, **changes)  # type: ignore[arg-type]


def twice_told(subject: UUID, event_type: str) -> list[EventRow]:
    return [EventRow(uuid4(), OTHER, event_type, subject, True) for _ in range(2)]


def test_matching_ledgers_of_a_batch_break_no_promise() -> None:
    assert compare(with_batch()) == []


@pytest.mark.parametrize(
    ("ledgers", "words"),
    [
        (
            with_books(jobs=[replace(JOB_ROW, attempt=2)], attempts=[LOST, replace(ATTEMPT, number=2)]),
            "1 lost attempts, 0 crashes",
        ),
        (with_books(usage=[replace(USAGE, outcome="error")]), "billed that did not end well"),
        (with_books(usage=[USAGE, replace(USAGE, job_id=OTHER)]), "no attempt made it"),
        (
            with_books(batches=[ENDED_BATCH], events=[EVENT_ROW, *twice_told(BATCH, "batch.completed")]),
            "completed, told: ['batch.completed', 'batch.completed']",
        ),
        (with_books(caps=Caps({SITE: 0}, {})), "1 jobs ran at once, 0 may"),
        (with_books(caps=Caps({}, {"sim-openai": 0})), "1 jobs ran at once, 0 may"),
        (replace(FINE, told=[*FINE.told, Told(0, "repeat", 1.0, 202, "", to_public("job", OTHER))]), "accepted as"),
        (with_batch(batches=[(0, BATCH_ID), (0, to_public("batch", OTHER))]), "taken as"),
        (with_batch(batches=[(0, to_public("batch", OTHER))]), "was accepted, and does not exist"),
        (with_batch(results={BATCH_ID: ["member-0", "member-0"]}), "2 members, and the results are"),
        (replace(FINE, told=[*FINE.told, Told(0, "cancel", 1.0, 404, "job_not_found")]), "answered 404"),
        (with_books(jobs=[replace(JOB_ROW, state="canceled", has_result=False)]), "canceled, and billed"),
        (replace(FINE, told=[*FINE.told, Told(0, "final", 9.0, 200, "", PUBLIC, "succeeded")]), "result: ''"),
        (
            replace(FINE, journal=[msgspec.structs.replace(ENTRY, outcome=CallOutcome.CUT)]),
            "billed, and the provider says cut",
        ),
        (
            replace(
                with_books(events=[EVENT_ROW, replace(EVENT_ROW, id=OTHER)]),
                received=[GOT, replace(GOT, event_id=to_public("evt", OTHER))],
            ),
            "its end came as",
        ),
    ],
)
def test_a_broken_promise_is_named_in_words(ledgers: Ledgers, words: str) -> None:
    assert [violation for violation in compare(ledgers) if words in violation.what]


@pytest.mark.parametrize("told", [[Told(0, "submit", 0.0, None)], [Told(0, "submit", 0.0, 503)]])
def test_a_client_without_a_response_may_have_a_job_or_none(told: list[Told]) -> None:
    assert compare(replace(FINE, told=told)) == []
    nothing = replace(BOOKS, jobs=[], attempts=[], usage=[], events=[], deliveries=[])
    assert compare(Ledgers([ORDER], told, [], nothing, [])) == []


def test_a_job_that_no_client_submitted_is_reported() -> None:
    assert promises(replace(FINE, told=[Told(0, "submit", 0.0, None, NOBODY_THERE)])) == {"idempotency"}


def test_attempts_that_overlap_are_counted() -> None:
    spans: Iterable[tuple[float, float | None]] = [(0, 2), (1, 3), (2, 4), (2.5, None)]

    attempts = [AttemptRow(uuid4(), 1, WORKER, at(a), at(b) if b else None, "ok") for a, b in spans]

    assert most_at_once(attempts) == 3


@pytest.mark.parametrize(("outage", "met"), [(Outage(0, 1), False), (Outage(START.timestamp() + 3, 2e10), True)])
def test_a_rescue_is_timed_from_the_fault_to_the_next_attempt(outage: Outage, met: bool) -> None:
    attempts = [AttemptRow(JOB, 1, WORKER, at(1), at(8), "lost"), AttemptRow(JOB, 2, uuid4(), at(8.5), at(9), "ok")]
    workers: dict[int, set[UUID]] = {4711: {WORKER}}

    found = list(rescues(replace(BOOKS, attempts=attempts), [Fault(at(2).timestamp(), 4711)], workers, [outage]))

    assert found == [Rescue(JOB, 6.5, met)]

"""Compares four ledgers: the clients' responses, the provider's journal, the database, the webhook receiver's log."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

from core.ids import from_public, to_public
from simulator.journal import JournalEntry
from tests.chaos.books import Books, JobRow
from tests.chaos.clients import Told
from tests.chaos.invariants import TERMINAL, Violation, check
from tests.chaos.plan import BatchOrder, Order
from tests.chaos.receiver import Received

JOB, EVENT = "job", "evt"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A finished job as it was seen during the campaign."""

    job_id: UUID
    state: str
    finished_at: datetime
    #: MD5 of the sealed result.
    result_md5: str


@dataclass(frozen=True)
class Ledgers:
    orders: Sequence[Order]
    told: Sequence[Told]
    journal: Sequence[JournalEntry]
    books: Books
    received: Sequence[Received]
    batch_orders: Sequence[BatchOrder] = ()
    #: The number and id of each accepted batch, once per acceptance.
    batches: Sequence[tuple[int, str]] = ()
    #: The `custom_id` of every line of a batch's results, by its id.
    results: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Finished jobs as seen during the campaign, and as they are now.
    sightings: Sequence[Sighting] = ()
    ended: Mapping[UUID, Sighting] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> Mapping[UUID, JobRow]:
        return {job.id: job for job in self.books.jobs}

    @cached_property
    def jobs_of(self) -> Mapping[int, Sequence[JobRow]]:
        """The jobs of each order, by the site's own words in them."""
        found: dict[int, list[JobRow]] = defaultdict(list)
        for job in self.books.jobs:
            if job.order is not None and job.order.isdigit():
                found[int(job.order)].append(job)
        return found

    @cached_property
    def told_of(self) -> Mapping[int, Sequence[Told]]:
        found: dict[int, list[Told]] = defaultdict(list)
        for told in self.told:
            found[told.order].append(told)
        return found


def compare(ledgers: Ledgers) -> list[Violation]:
    """Return every promise (docs/promises.md) that the ledgers show as broken."""
    comparisons = (
        accepted_is_kept,
        nothing_is_made_up,
        batches_are_kept,
        a_wrong_key_is_refused,
        canceled_stays_canceled,
        what_was_read_stays_true,
        ends_never_change,
        journal_and_accounts_agree,
        every_end_arrived,
        nothing_else_arrived,
    )
    return check(ledgers.books) + [violation for each in comparisons for violation in each(ledgers)]


# Clients and database


def accepted_is_kept(ledgers: Ledgers) -> Iterator[Violation]:
    """Every 202 is one job, and every 202 of an order with a key the same one."""
    for order in ledgers.orders:
        accepted = {told.job_id for told in ledgers.told_of[order.number] if told.status == 202}
        for job_id in accepted:
            if from_public(JOB, job_id) not in ledgers.jobs:
                yield Violation("lost", job_id, f"order {order.number} was accepted under this id")
        if order.key and len(accepted) > 1:
            yield Violation("idempotency", f"order {order.number}", f"accepted as {sorted(accepted)}")


def nothing_is_made_up(ledgers: Ledgers) -> Iterator[Violation]:
    """There are as many jobs as were accepted, and at most one more where a client got no response."""
    for order in ledgers.orders:
        posts = [told for told in ledgers.told_of[order.number] if told.question in ("submit", "repeat")]
        made = len(ledgers.jobs_of[order.number])
        accepted = len({told.job_id for told in posts if told.status == 202})
        unheard = sum(not told.is_clear for told in posts)
        most = 1 if order.key and (accepted or unheard) else accepted + unheard
        if not accepted <= made <= most:
            yield Violation(
                "idempotency", f"order {order.number}", f"{made} jobs; {accepted} accepted, {unheard} unanswered"
            )


def batches_are_kept(ledgers: Ledgers) -> Iterator[Violation]:
    """An accepted batch exists once, and its results have one line for each member."""
    known = {batch.id for batch in ledgers.books.batches}
    for order in ledgers.batch_orders:
        ids = {batch_id for number, batch_id in ledgers.batches if number == order.number}
        if len(ids) > 1:
            yield Violation("idempotency", f"batch order {order.number}", f"taken as {sorted(ids)}")
        for batch_id in ids:
            if from_public("batch", batch_id) not in known:
                yield Violation("lost", batch_id, "was accepted, and does not exist")
            lines = sorted(ledgers.results.get(batch_id, ()))
            if lines != sorted(f"member-{number}" for number in range(len(order.tempers))):
                yield Violation("lost", batch_id, f"{len(order.tempers)} members, and the results are {lines}")


def a_wrong_key_is_refused(ledgers: Ledgers) -> Iterator[Violation]:
    for told in ledgers.told:
        if told.question == "abuse" and told.is_clear and told.status not in (422, None):
            yield Violation(
                "idempotency", f"order {told.order}", f"the response to another body under its key was {told.status}"
            )


def canceled_stays_canceled(ledgers: Ledgers) -> Iterator[Violation]:
    """A response `canceled` means a canceled job that is never billed; a 409 means a job that had finished before."""
    for told in ledgers.told:
        if told.question != "cancel" or not told.is_clear:
            continue
        job = ledgers.jobs.get(from_public(JOB, told.job_id)) if told.job_id else None
        if told.status == 200 and (job is None or job.cancel_requested_at is None):
            yield Violation("cancel", told.job_id, "the response was 200, but no cancel is recorded")
        elif told.status not in (200, 409, None):
            yield Violation("cancel", f"order {told.order}", f"answered {told.status} {told.code}")
    for job in ledgers.books.jobs:
        if job.state == "canceled" and any(row.billable for row in ledgers.books.usage_of[job.id]):
            yield Violation("cancel", str(job.id), "canceled, and billed")


def what_was_read_stays_true(ledgers: Ledgers) -> Iterator[Violation]:
    """A client that saw a terminal state always sees the same state and result."""
    ends: dict[str, Told] = {}
    for told in ledgers.told:
        if told.status not in (200, 202) or not told.job_id:
            continue
        before = ends.get(told.job_id)
        if before and (told.state, told.result_sha256) != (before.state, before.result_sha256):
            yield Violation("fence", told.job_id, f"was told to be {before.state}, later {told.state}")
        if told.state in TERMINAL:
            ends[told.job_id] = told
    for order in ledgers.orders:
        final = [told for told in ledgers.told_of[order.number] if told.question == "final"]
        if final and final[-1].status != 200:
            yield Violation("lost", f"order {order.number}", f"cannot be read: {final[-1].status}")
        if final and (final[-1].state == "succeeded") != bool(final[-1].result_sha256):
            yield Violation("lost", final[-1].job_id, f"{final[-1].state}, result: {final[-1].result_sha256!r}")


def ends_never_change(ledgers: Ledgers) -> Iterator[Violation]:
    for seen in ledgers.sightings:
        if (now := ledgers.ended.get(seen.job_id)) != seen:
            yield Violation("fence", str(seen.job_id), f"had ended as {seen}, and is now {now}")


# Provider and usage events


def journal_and_accounts_agree(ledgers: Ledgers) -> Iterator[Violation]:
    """Every call in the journal has a usage event with the same tokens; billed calls were answered completely."""
    seen = {entry.client_request_id: entry for entry in ledgers.journal}
    accounts = {row.dedupe_key: row for row in ledgers.books.usage}
    if len(seen) != len(ledgers.journal):
        yield Violation("accounts", "journal", "a call was made twice under one name")
    for name, entry in seen.items():
        account = accounts.get(name or "")
        if account is None:
            yield Violation("accounts", str(name), "the provider saw a call that has no account")
            continue
        tokens = (account.input_tokens, account.output_tokens)
        if entry.usage_reported and not account.estimated and tokens != (entry.input_tokens, entry.output_tokens):
            yield Violation("accounts", str(name), f"{tokens} tokens, and the provider counted otherwise")
        if account.billable and (entry.outcome != "ok" or account.estimated):
            yield Violation("accounts", str(name), f"billed, and the provider says {entry.outcome}")
    for name, account in accounts.items():
        # A call that failed, or whose worker died, may never have reached the provider.
        if account.outcome == "ok" and name not in seen:
            yield Violation("accounts", name, "ended well, and the provider never saw it")


# The receiver


def every_end_arrived(ledgers: Ledgers) -> Iterator[Violation]:
    """Each delivery succeeded, and the receiver got the event at least once and always with the same bytes."""
    taken: dict[str, set[str]] = defaultdict(set)
    for one in ledgers.received:
        if one.status == 204:
            taken[one.event_id].add(one.body_sha256)
    for delivery in ledgers.books.deliveries:
        event_id = to_public(EVENT, delivery.event_id)
        if delivery.state != "delivered":
            yield Violation("terminal_events_missing", event_id, f"its delivery is {delivery.state}")
        elif not taken[event_id]:
            yield Violation("terminal_events_missing", event_id, "delivered, and the receiver has it not")
        elif len(taken[event_id]) > 1:
            yield Violation("webhooks", event_id, "came with different bytes")


def nothing_else_arrived(ledgers: Ledgers) -> Iterator[Violation]:
    """The receiver got no event that the database lacks; each job's terminal event has one id."""
    events = {to_public(EVENT, event.id): event for event in ledgers.books.events}
    ids: dict[str, set[str]] = defaultdict(set)
    for one in ledgers.received:
        if one.refused:
            yield Violation("webhooks", one.event_id, f"signature: {one.refused}")
        event = events.get(one.event_id)
        if event is None or event.type != one.type:
            yield Violation("webhooks", one.event_id, f"{one.type} came, and the database has {event}")
        if one.job_id and event is not None and event.is_terminal:
            ids[one.job_id].add(one.event_id)
    for job_id, found in ids.items():
        if len(found) > 1:
            yield Violation("terminal_events_double", job_id, f"its end came as {sorted(found)}")

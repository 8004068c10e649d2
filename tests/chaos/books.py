"""The database at the end of a campaign: the rows that the promises are about."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar
from uuid import UUID

Row = TypeVar("Row")


class Cursor(Protocol):
    """What Django's cursors and psycopg's have in common."""

    def execute(self, query: Any, params: Any = None, /) -> Any: ...

    def fetchall(self) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True, slots=True)
class JobRow:
    id: UUID
    site_id: UUID
    state: str
    attempt: int
    max_attempts: int
    error_count: int
    crash_count: int
    has_result: bool
    worker_id: UUID | None
    cancel_requested_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    idempotency_key: str | None
    order: str | None
    error_code: str
    batch_id: UUID | None
    provider: str


@dataclass(frozen=True, slots=True)
class AttemptRow:
    job_id: UUID
    number: int
    worker_id: UUID
    started_at: datetime
    ended_at: datetime | None
    outcome: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    dedupe_key: str
    job_id: UUID | None
    attempt: int | None
    outcome: str
    billable: bool
    estimated: bool
    input_tokens: int
    output_tokens: int
    cost_pico_usd: int


@dataclass(frozen=True, slots=True)
class EventRow:
    id: UUID
    site_id: UUID
    type: str
    subject_id: UUID | None
    is_terminal: bool


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    id: UUID
    event_id: UUID
    state: str
    attempts: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    id: UUID
    state: str
    total: int
    completed: int | None
    failed: int | None


@dataclass(frozen=True, slots=True)
class Caps:
    """How many jobs may run at once, of a site and at a provider."""

    sites: Mapping[UUID, int]
    providers: Mapping[str, int]


@dataclass(frozen=True)
class Books:
    jobs: Sequence[JobRow]
    attempts: Sequence[AttemptRow]
    usage: Sequence[UsageRow]
    events: Sequence[EventRow]
    deliveries: Sequence[DeliveryRow]
    batches: Sequence[BatchRow]
    caps: Caps
    #: Each site's endpoints that receive every event.
    endpoints: Mapping[UUID, int]

    @cached_property
    def attempts_of(self) -> Mapping[UUID, Sequence[AttemptRow]]:
        return _grouped((row.job_id, row) for row in sorted(self.attempts, key=lambda row: row.number))

    @cached_property
    def usage_of(self) -> Mapping[UUID | None, Sequence[UsageRow]]:
        return _grouped((row.job_id, row) for row in self.usage)

    @cached_property
    def terminal_events_of(self) -> Mapping[UUID | None, Sequence[EventRow]]:
        return _grouped((row.subject_id, row) for row in self.events if row.is_terminal)

    @cached_property
    def deliveries_of(self) -> Mapping[UUID, Sequence[DeliveryRow]]:
        return _grouped((row.event_id, row) for row in self.deliveries)

    @cached_property
    def members_of(self) -> Mapping[UUID | None, Sequence[JobRow]]:
        return _grouped((job.batch_id, job) for job in self.jobs)

    @cached_property
    def capped(self) -> frozenset[UUID]:
        """Jobs of sites with a cap."""
        return frozenset(job.id for job in self.jobs if job.site_id in self.caps.sites)

    @cached_property
    def unfinished(self) -> int:
        """Unfinished jobs and pending deliveries."""
        jobs = sum(job.finished_at is None for job in self.jobs)
        return jobs + sum(delivery.state == "pending" for delivery in self.deliveries)


def read_books(cursor: Cursor) -> Books:
    """Read all of it. Nothing may be running, because it takes several statements."""
    return Books(
        jobs=[JobRow(*row) for row in _rows(cursor, JOBS)],
        attempts=[AttemptRow(*row) for row in _rows(cursor, ATTEMPTS)],
        usage=[UsageRow(*row) for row in _rows(cursor, USAGE)],
        events=[EventRow(*row) for row in _rows(cursor, EVENTS)],
        deliveries=[DeliveryRow(*row) for row in _rows(cursor, DELIVERIES)],
        batches=[BatchRow(*row) for row in _rows(cursor, BATCHES)],
        caps=Caps(dict(_rows(cursor, SITE_CAPS)), dict(_rows(cursor, PROVIDER_CAPS))),  # type: ignore[arg-type]
        endpoints=dict(_rows(cursor, ENDPOINTS)),  # type: ignore[arg-type]
    )


JOBS = """
SELECT id, site_id, state, attempt, max_attempts, error_count, crash_count, result IS NOT NULL, worker_id,
       cancel_requested_at, created_at, finished_at, idempotency_key, metadata->>'order', error_code, batch_id, provider
  FROM jobs_job ORDER BY id
"""
ATTEMPTS = "SELECT job_id, number, worker_id, started_at, ended_at, outcome FROM jobs_attempt"
USAGE = """
SELECT dedupe_key, job_id, attempt, outcome, billable, estimated, input_tokens, output_tokens, cost_pico_usd
  FROM metering_usageevent
"""
EVENTS = "SELECT id, site_id, type, subject_id, is_terminal FROM webhooks_event"
DELIVERIES = "SELECT id, event_id, state, attempts FROM webhooks_delivery"
BATCHES = "SELECT id, state, total, completed, failed FROM jobs_batch"
SITE_CAPS = "SELECT id, max_running_jobs FROM tenants_site WHERE max_running_jobs IS NOT NULL"
PROVIDER_CAPS = "SELECT name, max_running_jobs FROM inference_provideraccount WHERE max_running_jobs IS NOT NULL"
ENDPOINTS = "SELECT site_id, count(*) FROM webhooks_endpoint WHERE is_enabled AND event_types = '{}' GROUP BY 1"


def _rows(cursor: Cursor, statement: str) -> Sequence[Sequence[Any]]:
    cursor.execute(statement)
    return cursor.fetchall()


def _grouped(pairs: Any) -> "Mapping[Any, list[Any]]":
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, row in pairs:
        groups[key].append(row)
    return groups

"""How long the jobs of a lost or frozen worker had to wait. Pure."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from tests.chaos.books import AttemptRow, Books


@dataclass(frozen=True, slots=True)
class Fault:
    """Something happened to a worker process at that Unix time."""

    at: float
    pid: int


@dataclass(frozen=True, slots=True)
class Outage:
    """Postgres was unavailable, or the desk was still recovering from it."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Rescue:
    """A job affected by a fault, and the seconds until it ran again or had finished."""

    job_id: UUID
    seconds: float
    #: Postgres was unavailable meanwhile: nothing can be rescued then.
    in_outage: bool


def rescues(
    books: Books, faults: Sequence[Fault], workers: Mapping[int, Set[UUID]], outages: Sequence[Outage]
) -> Iterator[Rescue]:
    """Yield the recovery of each job that a worker held at the fault. `workers` has the ids of each process."""
    by_worker: dict[UUID, list[AttemptRow]] = {}
    for row in books.attempts:
        by_worker.setdefault(row.worker_id, []).append(row)
    for fault in faults:
        for worker_id in workers.get(fault.pid, set()):
            for row in by_worker.get(worker_id, []):
                if row.outcome == "lost" and _held_at(row, fault.at) and (back := _back_at(books, row)):
                    away = any(outage.begin < back and outage.end > fault.at for outage in outages)
                    yield Rescue(row.job_id, back - fault.at, away)


def _held_at(row: AttemptRow, at: float) -> bool:
    return row.started_at.timestamp() <= at and (row.ended_at is None or row.ended_at.timestamp() > at)


def _back_at(books: Books, lost: AttemptRow) -> float | None:
    """Return when the job ran again or, if that was its last attempt, when it was finished.

    A job of a site with a cap may then have to wait: it counts as recovered when it is queued again.
    """
    later = [row.started_at for row in books.attempts_of[lost.job_id] if row.number == lost.number + 1]
    if lost.job_id in books.capped:
        later = []
    moment = later[0] if later else lost.ended_at
    return moment.timestamp() if moment else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0

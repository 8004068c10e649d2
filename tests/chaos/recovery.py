"""How long the jobs of a worker that was lost or frozen had to wait. Pure."""

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
    """Postgres was away, or the desk was still settling after it."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Rescue:
    """A job that a fault met, and after how many seconds it ran again or had ended."""

    job_id: UUID
    seconds: float
    #: Postgres was away meanwhile: nobody can be rescued then.
    in_outage: bool


def rescues(
    books: Books, faults: Sequence[Fault], workers: Mapping[int, Set[UUID]], outages: Sequence[Outage]
) -> Iterator[Rescue]:
    """Yield what became of each job that a worker held when it was met. `workers` has the ids of each process."""
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
    """Return when the job ran again or, if that was its last attempt, when it was ended.

    One of a site with a cap may then have to wait for its turn: it is back when it is in the queue again.
    """
    later = [row.started_at for row in books.attempts_of[lost.job_id] if row.number == lost.number + 1]
    if lost.job_id in books.capped:
        later = []
    moment = later[0] if later else lost.ended_at
    return moment.timestamp() if moment else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of them lies; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0

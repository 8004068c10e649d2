"""The slots of a worker: which attempts hold one, how far each has come, and how many more jobs to claim.

    PENDING ──▶ STARTING ──▶ CALLING ──▶ FINISHING ──▶ removed
       └────────────┴────────────┴── stopped: its site canceled it, or the worker stops or lost its lease

Pure: no I/O, no event loop, and the time is an argument. `jobs.worker.engine` acts on what is decided here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar
from uuid import UUID

from jobs.worker.leases import HeldJob
from jobs.worker.outcomes import AttemptCanceled, AttemptReleased
from jobs.worker.ramp import SlotRamp


class SlotPhase(Enum):
    """How far an attempt has come. It takes up a slot until its outcome is being written."""

    #: Its task has not run yet.
    PENDING = auto()
    #: Its first call is being prepared, and the usage record of that call opened.
    STARTING = auto()
    CALLING = auto()
    #: Its outcome is being written. Nothing may interrupt that.
    FINISHING = auto()


@dataclass(slots=True, kw_only=True)
class JobSlot:
    """One attempt in progress. `stop_outcome` is the reason why it was stopped, if it was."""

    job_id: UUID
    phase: SlotPhase = SlotPhase.PENDING
    stop_outcome: AttemptCanceled | AttemptReleased | None = None

    def stop(self, outcome: AttemptCanceled | AttemptReleased) -> bool:
        """Record that the attempt is to stop with `outcome`. Returns whether its task must be canceled for that.

        A pending task must not be: canceled before its first step, it would never write its outcome. It reads
        `stop_outcome` when it starts.
        """
        if self.stop_outcome is not None or self.phase is SlotPhase.FINISHING:
            return False
        self.stop_outcome = outcome
        return self.phase is not SlotPhase.PENDING


Slot = TypeVar("Slot", bound=JobSlot)


class SlotPool(Generic[Slot]):
    """The attempts of one worker, by job. Times are in seconds, by any monotonic clock."""

    def __init__(self, slots: int, *, max_starting: int, now: float) -> None:
        self._size = slots
        self._max_starting = max_starting
        self._slots: dict[UUID, Slot] = {}
        self._ramp = SlotRamp(max_starting, slots, now)
        #: The last claim returned as many jobs as it could, so there may be more.
        self.has_backlog = False
        self._unknown_claims: frozenset[HeldJob] = frozenset()

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def add(self, slot: Slot) -> None:
        self._slots[slot.job_id] = slot

    def remove(self, slot: Slot) -> None:
        """Free the slot, unless a newer attempt of the same job holds it."""
        if self._slots.get(slot.job_id) is slot:
            del self._slots[slot.job_id]

    # What to claim

    def free(self, now: float) -> int:
        """Return how many jobs may be claimed now; zero or less for none."""
        held, phases = len(self._slots), Counter(slot.phase for slot in self._slots.values())
        taken = held - phases[SlotPhase.FINISHING]
        starting = phases[SlotPhase.PENDING] + phases[SlotPhase.STARTING]
        open_slots = self._ramp.open_slots(taken, now)
        # While Postgres is slow, no more outcomes wait to be written than there are slots.
        return min(open_slots - taken, 2 * self._size - held, self._max_starting - starting)

    def on_claimed(self, limit: int, count: int) -> None:
        """Take note of a claim that was allowed `limit` jobs and returned `count`."""
        self.has_backlog = count == limit

    @property
    def opens_more_soon(self) -> bool:
        """Whether jobs wait for slots that the ramp opens within moments, without any event that says so."""
        return self.has_backlog and self._ramp.is_opening

    # What to stop, to release and to stream

    def to_cancel(self, held: Iterable[HeldJob]) -> list[Slot]:
        """Return the attempts whose jobs are to be canceled, according to the database."""
        return [self._slots[job.job_id] for job in held if job.is_cancel_requested and job.job_id in self._slots]

    def to_release(self, held: Iterable[HeldJob], *, is_claiming: bool) -> frozenset[HeldJob]:
        """Return the jobs that the worker holds in the database but does not know: lost answers of its claims.

        Only those that were unknown at the previous heartbeat, too, and none while a claim is on its way, whose answer
        may still come. If it comes after the release, the fence stops the attempt.
        """
        unknown = frozenset() if is_claiming else frozenset(job for job in held if job.job_id not in self._slots)
        confirmed, self._unknown_claims = unknown & self._unknown_claims, unknown
        return confirmed

    def unfinished(self) -> list[Slot]:
        """Return the attempts whose outcome is not being written yet."""
        return [slot for slot in self._slots.values() if slot.phase is not SlotPhase.FINISHING]

"""What has to be done about batches again and again, by every worker: each part is safe to be done by many at once.

Reading files is no part of it: it takes seconds, and nothing else should wait for that (`jobs.batches.expand`).
"""

from dataclasses import dataclass

from jobs.batches.conclude import conclude_ended
from jobs.batches.stop import stop_members
from jobs.batches.tell import tell_progress


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done."""

    #: Members ended, or their workers asked to stop, because their batch is canceled or overdue.
    stopped: int
    #: Batches that ended.
    concluded: int
    #: Batches whose progress was told.
    told: int


def tend() -> Tended:
    """Do everything that is due. Cheap where nothing is."""
    return Tended(stopped=stop_members(), concluded=conclude_ended(), told=tell_progress())

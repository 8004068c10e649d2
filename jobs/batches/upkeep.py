"""What has to be done about batches again and again, by every worker: each part is safe to be done by many at once."""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.batches.conclude import conclude_ended
from jobs.batches.expand import expand_one
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
    #: A file was read; there may be another.
    expanded: bool


def tend(is_stopping: Callable[[], bool] = lambda: False) -> Tended:
    """Do everything that is due. Cheap where nothing is.

    Reading a file of 50,000 lines takes seconds, so it comes last, and is left to another worker if this one
    `is_stopping`.
    """
    return Tended(
        stopped=stop_members(), concluded=conclude_ended(), told=tell_progress(), expanded=expand_one(is_stopping)
    )

"""What has to be done about batches again and again, by every worker: each part is safe to be done by many at once.

Reading files is no part of it: it takes seconds, and nothing else should wait for that (`jobs.batches.expand`).
"""

from dataclasses import dataclass

from jobs.batches.cancel import stop_members
from jobs.batches.events import record_due_progress
from jobs.batches.finalize import finalize_ended


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What was done."""

    #: Members ended, or their workers asked to stop, because their batch is canceled or overdue.
    stopped: int
    #: Batches that ended.
    finalized: int
    #: Batches whose progress was told.
    progress_events: int


def run_maintenance() -> MaintenanceReport:
    """Do everything that is due. Cheap where nothing is."""
    return MaintenanceReport(stopped=stop_members(), finalized=finalize_ended(), progress_events=record_due_progress())

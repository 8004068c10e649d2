"""Periodic maintenance of batches, run by every worker; each part is safe to run concurrently.

Expanding files is not part of it: that takes seconds, and nothing else should wait for it (`jobs.batches.expand`).
"""

from dataclasses import dataclass

from jobs.batches.cancel import stop_members
from jobs.batches.events import record_due_progress
from jobs.batches.finalize import finalize_ended


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What one run did."""

    #: Members that were ended, or whose cancel was requested, because their batch was canceled or expired.
    stopped: int
    #: Batches that ended.
    finalized: int
    #: Recorded `batch.progress` events.
    progress_events: int


def run_maintenance() -> MaintenanceReport:
    """Do all that is due. Cheap if nothing is."""
    return MaintenanceReport(stopped=stop_members(), finalized=finalize_ended(), progress_events=record_due_progress())

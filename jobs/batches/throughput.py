"""How fast a batch comes along, and what that means for the rest of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.models import Batch

WINDOW = timedelta(minutes=3)
#: No more rows than this are read; they are the latest, and say as much.
MAX_ROWS = 1000
#: Fewer say nothing about the rest.
MIN_ROWS = 3

# The index of the site's ended jobs in the order of their ends answers this, however many members there are.
RECENT = """
SELECT count(*), min(finished_at), statement_timestamp() FROM (
    SELECT finished_at FROM jobs_job
     WHERE site_id = %(site_id)s AND erased_at IS NULL AND finished_at > statement_timestamp() - %(window)s
       AND batch_id = %(batch_id)s AND state IN ('succeeded', 'failed')
     ORDER BY finished_at DESC LIMIT %(most)s
) recent
"""


@dataclass(frozen=True, slots=True)
class BatchThroughput:
    """How many members were worked off within how long, until now."""

    ended: int
    span: timedelta

    @property
    def per_minute(self) -> float:
        return self.ended * 60 / max(self.span.total_seconds(), 1.0)


def measure_throughput(batch: Batch) -> BatchThroughput:
    """Return the pace of the last minutes."""
    values: dict[str, Any] = {"site_id": batch.site_id, "batch_id": batch.id, "window": WINDOW, "most": MAX_ROWS}
    with connection.cursor() as cursor:
        cursor.execute(RECENT, values)
        ended, oldest, now = cursor.fetchone()
    begin = oldest if ended == MAX_ROWS else _begin(batch, now)
    return BatchThroughput(ended, max(now - begin, timedelta(0)))


def estimate_time_left(counts: MemberCounts, throughput: BatchThroughput) -> timedelta | None:
    """Return how long the rest takes at this pace; None where nobody can say."""
    rest = counts.queued + counts.running
    if throughput.ended < MIN_ROWS or not rest:
        return None
    # What cannot end within a century never ends, and is no span of time any more.
    return timedelta(minutes=min(rest / throughput.per_minute, 60 * 24 * 36500))


def estimate_total_cost(counts: MemberCounts, usage: BatchUsage) -> int | None:
    """Return what the batch will have cost if the rest costs as much, in pico-USD; None where nobody can say."""
    if usage.cost_pico_usd is None or not counts.succeeded:
        return None
    hoped_for = counts.succeeded + counts.queued + counts.running
    return usage.cost_pico_usd * hoped_for // counts.succeeded


def _begin(batch: Batch, now: datetime) -> datetime:
    window = now - WINDOW
    return max(window, batch.in_progress_at) if batch.in_progress_at else window

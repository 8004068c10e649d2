"""The throughput of a batch over the last minutes, and estimates of its remaining time and total cost."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from jobs.batches.progress import BatchUsage, MemberCounts
from jobs.models import Batch

WINDOW = timedelta(minutes=3)
#: The maximum number of rows read. The latest thousand give the same result as all.
MAX_ROWS = 1000
#: With fewer rows there is no estimate.
MIN_ROWS = 3

# Answered by the index on (site, finished_at), in the same time however many members there are.
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
    """How many members ended within `span`, until now."""

    ended: int
    span: timedelta

    @property
    def per_minute(self) -> float:
        return self.ended * 60 / max(self.span.total_seconds(), 1.0)


def measure_throughput(batch: Batch) -> BatchThroughput:
    """Return the throughput within `WINDOW`, or since the batch started."""
    values: dict[str, Any] = {"site_id": batch.site_id, "batch_id": batch.id, "window": WINDOW, "most": MAX_ROWS}
    with connection.cursor() as cursor:
        cursor.execute(RECENT, values)
        ended, oldest, now = cursor.fetchone()
    begin = oldest if ended == MAX_ROWS else _begin(batch, now)
    return BatchThroughput(ended, max(now - begin, timedelta(0)))


def estimate_time_left(counts: MemberCounts, throughput: BatchThroughput) -> timedelta | None:
    """Return how long the rest takes at this throughput; None if too few members ended to tell."""
    rest = counts.queued + counts.running
    if throughput.ended < MIN_ROWS or not rest:
        return None
    # At most a century: larger values overflow timedelta.
    return timedelta(minutes=min(rest / throughput.per_minute, 60 * 24 * 36500))


def estimate_total_cost(counts: MemberCounts, usage: BatchUsage) -> int | None:
    """Return the final cost in pico-USD if the rest costs as much per member; None without prices or answers."""
    if usage.cost_pico_usd is None or not counts.succeeded:
        return None
    expected = counts.succeeded + counts.queued + counts.running
    return usage.cost_pico_usd * expected // counts.succeeded


def _begin(batch: Batch, now: datetime) -> datetime:
    window = now - WINDOW
    return max(window, batch.in_progress_at) if batch.in_progress_at else window

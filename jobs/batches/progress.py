"""Counts and usage of the members of batches: frozen values of ended batches, sums over the members of others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count

from jobs.models import Batch, Job

#: The largest value of a column that stores a sum.
MAX_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class MemberCounts:
    """The members of a batch by their states."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def unsuccessful(self) -> int:
        """All members that ended without an answer: the lines of the error file."""
        return self.failed + self.canceled + self.expired

    @property
    def ended(self) -> int:
        return self.succeeded + self.unsuccessful

    @property
    def total(self) -> int:
        return self.queued + self.running + self.ended


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """The usage of the members' billed calls. `cost_pico_usd` is None if no price is known for any of them."""

    cost_pico_usd: int | None = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


USAGE_SQL = """
SELECT job.batch_id,
       CASE WHEN bool_or(used.price_version <> '') THEN sum(used.cost_pico_usd) END,
       sum(used.input_tokens), sum(used.cached_input_tokens), sum(used.output_tokens), sum(used.reasoning_tokens)
  FROM jobs_job job JOIN metering_usageevent used ON used.job_id = job.id AND used.billable
 WHERE job.batch_id = ANY(%s) AND job.state = 'succeeded'
 GROUP BY job.batch_id
"""


def counts_of(batches: Sequence[Batch]) -> dict[UUID, MemberCounts]:
    """Return the member counts of each batch."""
    frozen = {batch.id: _frozen_counts(batch) for batch in batches if batch.completed is not None}
    unfinished = [batch.id for batch in batches if batch.completed is None]
    return {**frozen, **count_members(unfinished)}


def count_members(batch_ids: Iterable[UUID]) -> dict[UUID, MemberCounts]:
    """Count the members of these batches."""
    counts: dict[UUID, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    if counts:
        rows = Job.objects.filter(batch__in=list(counts)).values_list("batch_id", "state").order_by()
        # `count(*)` and no column, so that the index on (batch, state) answers this alone (index-only scan).
        for batch_id, state, count in rows.annotate(count=Count("*")):
            counts[batch_id][state] = count
    return {batch_id: MemberCounts(**states) for batch_id, states in counts.items()}


def usage_of(batches: Sequence[Batch]) -> dict[UUID, BatchUsage]:
    """Return the usage of each batch."""
    frozen = {batch.id: _frozen_usage(batch) for batch in batches if batch.completed is not None}
    unfinished = [batch.id for batch in batches if batch.completed is None]
    return {**frozen, **sum_usage(unfinished)}


def sum_usage(batch_ids: Sequence[UUID]) -> dict[UUID, BatchUsage]:
    """Sum up the billed calls of the members of these batches."""
    usage: dict[UUID, BatchUsage] = {batch_id: BatchUsage() for batch_id in batch_ids}
    if usage:
        with connection.cursor() as cursor:
            cursor.execute(USAGE_SQL, [list(batch_ids)])
            usage.update({batch_id: _to_usage(sums) for batch_id, *sums in cursor.fetchall()})
    return usage


def _to_usage(sums: list[Any]) -> BatchUsage:
    # Postgres returns the sum of bigints as a numeric, which may exceed the bigint column that stores it.
    return BatchUsage(*(None if each is None else min(int(each), MAX_BIGINT) for each in sums))  # type: ignore[arg-type]


def _frozen_counts(batch: Batch) -> MemberCounts:
    canceled, expired = batch.canceled or 0, batch.expired or 0
    failed = (batch.failed or 0) - canceled - expired
    return MemberCounts(succeeded=batch.completed or 0, failed=failed, canceled=canceled, expired=expired)


def _frozen_usage(batch: Batch) -> BatchUsage:
    return BatchUsage(
        cost_pico_usd=batch.cost_pico_usd,
        input_tokens=batch.input_tokens or 0,
        cached_input_tokens=batch.cached_input_tokens or 0,
        output_tokens=batch.output_tokens or 0,
        reasoning_tokens=batch.reasoning_tokens or 0,
    )

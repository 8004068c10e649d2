"""Close the usage events of calls whose outcome was never reported."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from django.db import connection

from metering.models import UsageEvent, UsageOutcome
from metering.prices import price_call
from providers.tiers import Tier
from providers.types import Usage

FIND_OPEN = """
SELECT event.* FROM metering_usageevent event
  JOIN unnest(%s::uuid[], %s::int[]) AS ended (job_id, attempt)
    ON event.job_id = ended.job_id AND event.attempt = ended.attempt
 WHERE event.outcome = 'open'
   FOR UPDATE OF event
"""

CLOSE_OPEN = """
UPDATE metering_usageevent event SET outcome = 'lost'
  FROM unnest(%s::uuid[], %s::int[]) AS ended (job_id, attempt)
 WHERE event.job_id = ended.job_id AND event.attempt = ended.attempt AND event.outcome = 'open'
"""


def close_lost_calls(
    attempts: Sequence[tuple[UUID, int]], input_tokens_of: Callable[[Sequence[UUID]], Mapping[UUID, int]]
) -> int:
    """Mark the open calls of dead workers as lost, with estimated input tokens; return how many there were.

    Unknown usage must not count as zero. The output tokens stay 0: nothing of the answers was received. Runs in the
    caller's transaction, which takes the attempts from the dead worker. `attempts` are pairs of job id and attempt
    number; `input_tokens_of` is called for the jobs that have an open call.
    """
    lost = list(UsageEvent.objects.raw(FIND_OPEN, _columns(attempts)))
    tokens = input_tokens_of([event.job_id for event in lost if event.job_id]) if lost else {}
    for event in lost:
        input_tokens = tokens[event.job_id] if event.job_id else 0
        event.outcome, event.estimated, event.input_tokens = UsageOutcome.LOST, True, input_tokens
        event.cost_pico_usd, event.price_version = price_call(
            event.provider,
            event.price_list,
            event.upstream_model,
            event.started_at,
            Usage(input_tokens),
            Tier(event.tier),
        )
    UsageEvent.objects.bulk_update(lost, ["outcome", "estimated", "input_tokens", "cost_pico_usd", "price_version"])
    return len(lost)


def close_open_calls(attempts: Sequence[tuple[UUID, int]]) -> int:
    """Mark as lost the open calls of attempts that their own worker is finishing; return how many there were.

    A worker reports every call that it made, so these were recorded and then not made: they used nothing.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLOSE_OPEN, _columns(attempts))
        return int(cursor.rowcount)


def _columns(attempts: Sequence[tuple[UUID, int]]) -> list[list[UUID] | list[int]]:
    return [[job_id for job_id, _ in attempts], [number for _, number in attempts]]

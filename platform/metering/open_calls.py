"""Close the accounts of calls that nobody reported on."""

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
    """Mark the open calls of workers that died as lost, with an estimate of the prompts: missing is not zero.

    Runs in the caller's transaction, which takes the attempts away. `attempts` are (job, attempt);
    `input_tokens_of` is asked for the jobs that have such a call.

    Returns how many there were. The answers' tokens are unknown, and stay 0: nothing of them was received.
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
    """Mark the open calls of attempts that their own worker is ending; return how many there were.

    A worker reports every call that it made, so these were written down and then not made: they used nothing.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLOSE_OPEN, _columns(attempts))
        return int(cursor.rowcount)


def _columns(attempts: Sequence[tuple[UUID, int]]) -> list[list[UUID] | list[int]]:
    return [[job_id for job_id, _ in attempts], [number for _, number in attempts]]

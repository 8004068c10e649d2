"""Close the accounts of calls whose worker died: what they used is estimated, for missing is not zero."""

from uuid import UUID

from metering.models import Outcome, UsageEvent
from metering.prices import rate
from providers.types import Usage


def close_lost_calls(job_id: UUID, attempt: int, input_tokens: int) -> int:
    """Mark the attempt's open calls as lost, with an estimate of the prompt; return how many there were.

    Runs in the caller's transaction, which takes the attempt away.

    The answer's tokens are unknown, and stay 0: nothing of it was received.
    """
    open_calls = UsageEvent.objects.filter(job_id=job_id, attempt=attempt, outcome=Outcome.OPEN)
    lost = list(open_calls.select_for_update())
    for event in lost:
        event.outcome, event.estimated, event.input_tokens = Outcome.LOST, True, input_tokens
        event.cost_pico_usd, event.price_version = rate(
            event.provider, event.price_list, event.upstream_model, event.started_at, Usage(input_tokens)
        )
    UsageEvent.objects.bulk_update(lost, ["outcome", "estimated", "input_tokens", "cost_pico_usd", "price_version"])
    return len(lost)

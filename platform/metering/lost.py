"""Close the accounts of calls that nobody reported on."""

from uuid import UUID

from metering.models import Outcome, UsageEvent
from metering.prices import rate
from providers.types import Usage


def close_lost_calls(job_id: UUID, attempt: int, input_tokens: int) -> int:
    """Mark the open calls of a worker that died as lost, with an estimate of the prompt: missing is not zero.

    Runs in the caller's transaction, which takes the attempt away.

    Returns how many there were. The answer's tokens are unknown, and stay 0: nothing of it was received.
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


def close_open_calls(job_id: UUID, attempt: int) -> int:
    """Mark the open calls of an attempt that is being ended by its own worker; return how many there were.

    A worker reports every call that it made, so these were written down and then not made: they used nothing.
    """
    open_calls = UsageEvent.objects.filter(job_id=job_id, attempt=attempt, outcome=Outcome.OPEN)
    return open_calls.update(outcome=Outcome.LOST)

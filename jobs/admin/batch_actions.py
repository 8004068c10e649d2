"""Operator actions on batches. Each is written to the audit log and returns its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from django.db import transaction

from jobs import pauses
from jobs.admin.job_actions import EXPECTED_ERRORS
from jobs.batches.cancel import cancel
from jobs.batches.retry import retry_failed
from jobs.models import Batch, BatchState
from tenants.audit import Actor, audit


@dataclass(frozen=True, slots=True)
class BatchActionResult:
    """The result of an action on a batch. `new` is the batch that retries its failed requests."""

    text: str
    done: bool
    new: Batch | None = None


BatchAction: TypeAlias = Callable[[Batch, Actor], BatchActionResult]


def pause_batch(batch: Batch, actor: Actor) -> BatchActionResult:
    try:
        result = pauses.pause(batch, actor)
    except EXPECTED_ERRORS as error:
        return BatchActionResult(f"Not paused. {error}", done=False)
    if not result.is_new:
        return BatchActionResult("Already paused", done=False)
    return BatchActionResult("Paused: running requests finish, no more are started", done=True)


def resume_batch(batch: Batch, actor: Actor) -> BatchActionResult:
    if not pauses.resume(batch, actor):
        return BatchActionResult("Nothing to do: it was not paused", done=False)
    return BatchActionResult("Resumed", done=True)


def cancel_batch(batch: Batch, actor: Actor) -> BatchActionResult:
    if batch.state in (BatchState.CANCELLING, BatchState.CANCELLED):
        return BatchActionResult("Already canceled", done=False)
    try:
        with transaction.atomic():
            after = cancel(batch.site, batch.public_id)
            audit(actor, "batch.cancel", batch.public_id, batch.site, {"state": [batch.state, after.state]})
    except EXPECTED_ERRORS as error:
        return BatchActionResult(f"Not canceled. {error}", done=False)
    stopping = after.state == BatchState.CANCELLING
    return BatchActionResult(
        "Cancel requested; workers will stop its running requests" if stopping else "Canceled", done=True
    )


def retry_batch(batch: Batch, actor: Actor) -> BatchActionResult:
    """Retry the failed requests as a new batch, under the grant of the token that submitted the batch."""
    try:
        with transaction.atomic():
            new = retry_failed(batch.site, batch.public_id, batch.grant)
            facts = {"new_batch": new.public_id, "members": new.total}
            audit(actor, "batch.retry", batch.public_id, batch.site, facts)
    except EXPECTED_ERRORS as error:
        return BatchActionResult(f"Not retried. {error}", done=False)
    return BatchActionResult(f"{new.total:,} requests retried", done=True, new=new)

"""What an operator does to a batch by hand: each act is written to the audit log, and says what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from django.db import transaction

from jobs import pauses
from jobs.batches.retry import retry_failed
from jobs.batches.stop import cancel
from jobs.models import Batch, BatchState
from jobs.operate import REFUSALS
from tenants.audit import Actor, audit


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What became of a batch. `new` is the one that tries again what failed in it."""

    text: str
    done: bool
    new: Batch | None = None


Act: TypeAlias = Callable[[Batch, Actor], BatchVerdict]


def pause_batch(batch: Batch, actor: Actor) -> BatchVerdict:
    try:
        held = pauses.pause(batch, actor)
    except REFUSALS as error:
        return BatchVerdict(f"Not paused. {error}", done=False)
    if not held.is_new:
        return BatchVerdict("Nothing to do, paused before", done=False)
    return BatchVerdict("Paused. What runs goes on; nothing more is begun", done=True)


def resume_batch(batch: Batch, actor: Actor) -> BatchVerdict:
    if not pauses.resume(batch, actor):
        return BatchVerdict("Nothing to do, it was not paused", done=False)
    return BatchVerdict("It goes on", done=True)


def cancel_batch(batch: Batch, actor: Actor) -> BatchVerdict:
    if batch.state in (BatchState.CANCELLING, BatchState.CANCELLED):
        return BatchVerdict("Nothing to do, canceled before", done=False)
    try:
        with transaction.atomic():
            after = cancel(batch.site, batch.public_id)
            audit(actor, "batch.cancel", batch.public_id, batch.site, {"state": [batch.state, after.state]})
    except REFUSALS as error:
        return BatchVerdict(f"Not canceled. {error}", done=False)
    stopping = after.state == BatchState.CANCELLING
    return BatchVerdict("Canceled; its workers were asked to stop" if stopping else "Canceled", done=True)


def retry_batch(batch: Batch, actor: Actor) -> BatchVerdict:
    """Try again what failed in the batch, as a new batch. The token that submitted it bounds the new one, too."""
    try:
        with transaction.atomic():
            new = retry_failed(batch.site, batch.public_id, batch.grant)
            facts = {"new_batch": new.public_id, "members": new.total}
            audit(actor, "batch.retry", batch.public_id, batch.site, facts)
    except REFUSALS as error:
        return BatchVerdict(f"Not tried again. {error}", done=False)
    return BatchVerdict(f"{new.total:,} tried again", done=True, new=new)

"""Pauses of a site, a queue or a batch: no job they cover is claimed. Running jobs finish, and no job is lost.

Operators and management commands call `pause` and `resume`, which write to the audit log. Sites pause their own batches
(`jobs.batches.pause`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from core.humanize import format_age
from jobs.errors import BatchEnded
from jobs.models import BATCH_QUEUE, DEFAULT_QUEUE, Batch, BatchState, Job, Pause
from jobs.tasks import bell
from tenants.audit import Actor, audit
from tenants.models import Site

#: States of batches that still have jobs to claim.
PAUSABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
MAX_REASON_LENGTH = 200
#: Prefix of a pause's actor where a site paused its own batch, before its slug. No operator's name contains a space.
SITE_ACTOR_PREFIX = "site "


class QueueName(StrEnum):
    """All queues."""

    DEFAULT = DEFAULT_QUEUE
    BATCH = BATCH_QUEUE


PauseScope: TypeAlias = Site | QueueName | Batch


@dataclass(frozen=True, slots=True)
class PauseResult:
    """An active pause. `is_new` is False if it was active before; it then keeps its first reason.

    An operator's pause of a batch replaces the site's own, and the site cannot lift it.
    """

    pause: Pause
    is_new: bool


def pause(scope: PauseScope, actor: Actor, reason: str = "") -> PauseResult:
    """Pause the target, and write to the audit log. Idempotent. Raises `BatchEnded` if no job of the batch is left."""
    with transaction.atomic():
        held = create_pause(scope, actor.name, reason)
        if held.is_new:
            kind, subject = describe_scope(scope)
            audit(actor, f"{kind}.pause", subject, _site_of(scope), {"reason": reason} if reason else {})
    return held


def resume(scope: PauseScope, actor: Actor) -> bool:
    """Remove the pause of the target, and write to the audit log; False if it was not paused."""
    with transaction.atomic():
        released = delete_pause(scope)
        if released:
            kind, subject = describe_scope(scope)
            audit(actor, f"{kind}.resume", subject, _site_of(scope))
    return released


def create_pause(scope: PauseScope, by: str, reason: str = "") -> PauseResult:
    """Pause the target without an entry in the audit log. Raises `BatchEnded`."""
    with transaction.atomic():
        if isinstance(scope, Batch):
            _check_pausable(scope.id)
        values = {"actor": by[:150], "reason": reason[:MAX_REASON_LENGTH]}
        if not by.startswith(SITE_ACTOR_PREFIX):
            Pause.objects.filter(actor__startswith=SITE_ACTOR_PREFIX, **_lookup(scope)).delete()
        row, is_new = Pause.objects.get_or_create(**_lookup(scope), defaults=values)
        if is_new:
            # `created_at` is set by the database.
            row.refresh_from_db(fields=["created_at"])
    return PauseResult(row, is_new)


def delete_pause(scope: PauseScope) -> bool:
    """Remove the pause of the target without an entry in the audit log; False if it was not paused."""
    with transaction.atomic():
        released, _ = Pause.objects.filter(**_lookup(scope)).delete()
        transaction.on_commit(bell.ring)
    return bool(released)


def is_paused_by_operator(scope: PauseScope) -> bool:
    """Whether an operator paused exactly this site, queue or batch. If not, another pause may still cover it."""
    return Pause.objects.filter(**_lookup(scope)).exclude(actor__startswith=SITE_ACTOR_PREFIX).exists()


def scope_of(row: Pause) -> PauseScope:
    """Return what a pause covers."""
    return row.site or row.batch or QueueName(row.queue or "")


def describe_scope(scope: PauseScope) -> tuple[str, str]:
    """Return the kind and the id of the target."""
    match scope:
        case Site():
            return "site", scope.public_id
        case Batch():
            return "batch", scope.public_id
        case _:
            return "queue", scope.value


def active_pauses() -> QuerySet[Pause]:
    """Return all pauses, the latest first."""
    return Pause.objects.select_related("site", "batch__site").order_by("-created_at", "-id")


def pauses_of_job(job: Job) -> QuerySet[Pause]:
    """Return the pauses that cover a job."""
    return Pause.objects.filter(Q(site=job.site_id) | Q(queue=job.queue) | Q(batch=job.batch_id, batch__isnull=False))


def pauses_of_batch(batch: Batch) -> QuerySet[Pause]:
    """Return the pauses that cover a batch."""
    return Pause.objects.filter(Q(batch=batch) | Q(site=batch.site_id) | Q(queue=BATCH_QUEUE))


def paused_batch_ids(batches: Sequence[Batch]) -> set[UUID]:
    """Return the ids of those that are paused, by a pause of their own, of their site or of all batches."""
    pausable = [batch for batch in batches if batch.state in PAUSABLE]
    if not pausable:
        return set()
    of_batches, of_sites = ([getattr(batch, name) for batch in pausable] for name in ("id", "site_id"))
    rows = Pause.objects.filter(Q(batch__in=of_batches) | Q(site__in=of_sites) | Q(queue=BATCH_QUEUE))
    covered = {each for row in rows for each in (row.batch_id, row.site_id, row.queue)}
    return {batch.id for batch in pausable if covered & {batch.id, batch.site_id, BATCH_QUEUE}}


def describe_pause(pause: Pause, now: datetime) -> str:
    """Return a sentence: what is paused, by whom, since when and why."""
    if pause.site:
        subject = f"The site {pause.site.slug}"
    else:
        subject = f"The queue {pause.queue}" if pause.queue else f"The batch {pause.batch}"
    actor = f" by {pause.actor}" if pause.actor else ""
    reason = f": {pause.reason}" if pause.reason else "."
    return f"{subject} was paused{actor} {format_age(pause.created_at, now)} ago{reason}"


def _check_pausable(batch_id: UUID) -> None:
    # The end of a batch removes its pause. The lock makes sure that no pause is created after that.
    state = Batch.objects.select_for_update(no_key=True).filter(id=batch_id).values_list("state", flat=True).get()
    if state not in PAUSABLE:
        raise BatchEnded(state)


def _lookup(scope: PauseScope) -> dict[str, Any]:
    match scope:
        case Site():
            return {"site_id": scope.id}
        case Batch():
            return {"batch_id": scope.id}
        case _:
            return {"queue": scope.value}


def _site_of(scope: PauseScope) -> Site | None:
    return scope.site if isinstance(scope, Batch) else scope if isinstance(scope, Site) else None

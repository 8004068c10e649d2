"""Hold back a site, a queue or a batch, and let it go on. What runs already goes on, and nothing is lost meanwhile.

Operators and commands `pause` and `resume`, which the audit log tells; sites hold back their own batches
(`jobs.batches.pause`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from jobs.errors import BatchEnded
from jobs.models import BATCH_QUEUE, DEFAULT_QUEUE, Batch, BatchState, Job, Pause
from jobs.tasks import bell
from tenants.audit import Actor, audit
from tenants.models import Site

#: There is something left to hold back.
PAUSABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
MAX_REASON_LENGTH = 200
#: Before the slug of a site that holds back a batch of its own. No operator's name has a space there.
SITE_ACTOR_PREFIX = "site "


class QueueName(StrEnum):
    """The queues there are."""

    DEFAULT = DEFAULT_QUEUE
    BATCH = BATCH_QUEUE


PauseScope: TypeAlias = Site | QueueName | Batch


@dataclass(frozen=True, slots=True)
class PauseResult:
    """A pause that holds. `is_new` is False if it held before, for the reason given then.

    One that a site made of its own batch gives way to an operator's, which the site cannot lift.
    """

    pause: Pause
    is_new: bool


def pause(scope: PauseScope, actor: Actor, reason: str = "") -> PauseResult:
    """Claim nothing more of it. Pausing twice is once. Raises `BatchEnded` for a batch of which nothing is left."""
    with transaction.atomic():
        held = create_pause(scope, actor.name, reason)
        if held.is_new:
            kind, subject = describe_scope(scope)
            audit(actor, f"{kind}.pause", subject, _site_of(scope), {"reason": reason} if reason else {})
    return held


def resume(scope: PauseScope, actor: Actor) -> bool:
    """Let it go on; False if it was not paused."""
    with transaction.atomic():
        released = delete_pause(scope)
        if released:
            kind, subject = describe_scope(scope)
            audit(actor, f"{kind}.resume", subject, _site_of(scope))
    return released


def create_pause(scope: PauseScope, by: str, reason: str = "") -> PauseResult:
    """Pause it without a word in the audit log. Raises `BatchEnded`."""
    with transaction.atomic():
        if isinstance(scope, Batch):
            _check_pausable(scope.id)
        wanted = {"actor": by[:150], "reason": reason[:MAX_REASON_LENGTH]}
        if not by.startswith(SITE_ACTOR_PREFIX):
            Pause.objects.filter(actor__startswith=SITE_ACTOR_PREFIX, **_lookup(scope)).delete()
        row, is_new = Pause.objects.get_or_create(**_lookup(scope), defaults=wanted)
        if is_new:
            # The moment is the database's.
            row.refresh_from_db(fields=["created_at"])
    return PauseResult(row, is_new)


def delete_pause(scope: PauseScope) -> bool:
    """Let it go on without a word in the audit log; False if it was not paused."""
    with transaction.atomic():
        released, _ = Pause.objects.filter(**_lookup(scope)).delete()
        transaction.on_commit(bell.ring)
    return bool(released)


def is_paused_by_operator(scope: PauseScope) -> bool:
    """Whether an operator paused this very thing; it may be held back by another pause all the same."""
    return Pause.objects.filter(**_lookup(scope)).exclude(actor__startswith=SITE_ACTOR_PREFIX).exists()


def scope_of(row: Pause) -> PauseScope:
    """Return what a pause covers."""
    return row.site or row.batch or QueueName(row.queue or "")


def describe_scope(scope: PauseScope) -> tuple[str, str]:
    """Return what kind of thing it is, and its id."""
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
    """Return the pauses that hold back a queued job."""
    return Pause.objects.filter(Q(site=job.site_id) | Q(queue=job.queue) | Q(batch=job.batch_id, batch__isnull=False))


def pauses_of_batch(batch: Batch) -> QuerySet[Pause]:
    """Return the pauses that hold back a batch."""
    return Pause.objects.filter(Q(batch=batch) | Q(site=batch.site_id) | Q(queue=BATCH_QUEUE))


def paused_batch_ids(batches: Sequence[Batch]) -> set[UUID]:
    """Return the ids of those of which nothing is begun, whether they are paused, or their site, or all batches."""
    under_way = [batch for batch in batches if batch.state in PAUSABLE]
    if not under_way:
        return set()
    of_batches, of_sites = ([getattr(batch, name) for batch in under_way] for name in ("id", "site_id"))
    rows = Pause.objects.filter(Q(batch__in=of_batches) | Q(site__in=of_sites) | Q(queue=BATCH_QUEUE))
    covered = {each for row in rows for each in (row.batch_id, row.site_id, row.queue)}
    return {batch.id for batch in under_way if covered & {batch.id, batch.site_id, BATCH_QUEUE}}


def _check_pausable(batch_id: UUID) -> None:
    # Its end takes the pause away; whoever comes first of the two, none is left behind.
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

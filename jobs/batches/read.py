"""Reads batches, for the API always within one site, and locks one for long work."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from uuid import UUID

from core.advisory_locks import try_advisory_lock
from core.ids import InvalidId, from_public, parse_id
from jobs.batches.progress import BatchUsage, MemberCounts, counts_of, usage_of
from jobs.errors import BatchNotFound
from jobs.models import Batch, Pause
from tenants.models import Site

#: Any number that no other two-part advisory lock of this database uses.
BATCH_LOCK = 0x4E49_474A


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as the API shows it, with counts and sums over its members."""

    batch: Batch
    counts: MemberCounts
    usage: BatchUsage
    is_paused: bool


def find_batch(site: Site, public_id: str, *, lock: bool = False) -> Batch:
    """Return the site's batch. Raises `BatchNotFound`, also for a malformed id and for another site's batch."""
    try:
        batch_id = from_public(Batch.ID_PREFIX, public_id)
    except InvalidId:
        raise BatchNotFound from None
    # NO KEY: its members may refer to it while it is locked.
    batches = Batch.objects.select_for_update(no_key=True) if lock else Batch.objects.all()
    batch = batches.filter(site=site, id=batch_id).first()
    if batch is None:
        raise BatchNotFound
    return batch


def find_batch_of_any_site(text: str) -> Batch | None:
    """Return the batch with this public id or UUID. For operators only: a site reads only its own batches."""
    batch_id = parse_batch_id(text.strip())
    return None if batch_id is None else Batch.objects.select_related("site").filter(id=batch_id).first()


def parse_batch_id(text: str) -> UUID | None:
    """Parse a batch's public id, or its UUID in the database."""
    return parse_id(Batch.ID_PREFIX, text)


def list_batches(site: Site, *, after: str | None, limit: int) -> list[Batch]:
    """Return the site's batches, newest first, only those older than `after` (a public id). Raises `BatchNotFound`."""
    batches = Batch.objects.filter(site=site)
    if after is not None:
        batches = batches.filter(id__lt=find_batch(site, after).id)
    return list(batches.order_by("-id")[:limit])


def view_of(batch: Batch) -> BatchView:
    return views_of([batch])[0]


def views_of(batches: Sequence[Batch]) -> list[BatchView]:
    """Return the batches as the API shows them, in a fixed number of statements."""
    counts, usage = counts_of(batches), usage_of(batches)
    paused = set(Pause.objects.filter(batch__in=[batch.id for batch in batches]).values_list("batch_id", flat=True))
    return [BatchView(batch, counts[batch.id], usage[batch.id], batch.id in paused) for batch in batches]


def try_batch_lock(batch_id: UUID) -> AbstractContextManager[bool]:
    """Lock the batch for this connection, until the end of the block or of the connection; False if another holds it.

    It keeps two workers from doing the same long work. What is written is still decided by the row's state.
    """
    return try_advisory_lock(BATCH_LOCK, str(batch_id))

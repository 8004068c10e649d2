"""Read batches, always within one site."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.ids import InvalidId, from_public
from jobs.batches.progress import BatchUsage, MemberCounts, counts_of, usage_of
from jobs.errors import BatchNotFound
from jobs.models import Batch, Pause
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as it is shown, with what is counted and added up from its members."""

    batch: Batch
    counts: MemberCounts
    usage: BatchUsage
    is_paused: bool


def find_batch(site: Site, public_id: str, *, lock: bool = False) -> Batch:
    """Return the site's batch. Raises `BatchNotFound`, also for another site's id and for nonsense."""
    try:
        wanted = from_public(Batch.ID_PREFIX, public_id)
    except InvalidId:
        raise BatchNotFound from None
    # Its members may refer to it while it is locked.
    batches = Batch.objects.select_for_update(no_key=True) if lock else Batch.objects.all()
    batch = batches.filter(site=site, id=wanted).first()
    if batch is None:
        raise BatchNotFound
    return batch


def list_batches(site: Site, *, after: str | None, limit: int) -> list[Batch]:
    """Return the site's batches, newest first, those behind `after` (a batch's public id). Raises `BatchNotFound`."""
    batches = Batch.objects.filter(site=site)
    if after is not None:
        batches = batches.filter(id__lt=find_batch(site, after).id)
    return list(batches.order_by("-id")[:limit])


def view_of(batch: Batch) -> BatchView:
    return views_of([batch])[0]


def views_of(batches: Sequence[Batch]) -> list[BatchView]:
    """Return the batches as they are shown; a few statements for all of them."""
    counts, accounts = counts_of(batches), usage_of(batches)
    paused = set(Pause.objects.filter(batch__in=[batch.id for batch in batches]).values_list("batch_id", flat=True))
    return [BatchView(batch, counts[batch.id], accounts[batch.id], batch.id in paused) for batch in batches]

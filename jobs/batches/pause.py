"""Pauses and resumes a batch for its site. Running requests finish."""

from django.db import transaction

from jobs import pauses
from jobs.batches.read import find_batch
from jobs.errors import PausedByOperator
from jobs.models import Batch
from jobs.pauses import SITE_ACTOR_PREFIX
from tenants.models import Site


def pause(site: Site, public_id: str, reason: str = "") -> Batch:
    """Pause the batch: no more of its jobs are claimed. Its completion window continues. Idempotent.

    Raises:
        BatchNotFound: no batch of this site has that id.
        BatchEnded: it has no jobs left to claim.
    """
    batch = find_batch(site, public_id)
    pauses.create_pause(batch, f"{SITE_ACTOR_PREFIX}{site.slug}", reason)
    return batch


def resume(site: Site, public_id: str) -> Batch:
    """Resume the batch; one that is not paused stays as it is.

    Raises:
        BatchNotFound: no batch of this site has that id.
        PausedByOperator: the operator paused it, not the site.
    """
    with transaction.atomic():
        # Pausing locks the batch, too, so that an operator's concurrent pause is not removed.
        batch = find_batch(site, public_id, lock=True)
        if pauses.is_paused_by_operator(batch):
            raise PausedByOperator
        pauses.delete_pause(batch)
    return batch

"""Hold a batch back, and let it go on, as its site asks for it. What runs already goes on."""

from django.db import transaction

from jobs import pauses
from jobs.batches.read import find_batch
from jobs.errors import PausedByOperator
from jobs.models import Batch
from jobs.pauses import SITE_ACTOR_PREFIX
from tenants.models import Site


def pause(site: Site, public_id: str, reason: str = "") -> Batch:
    """Claim nothing more of the batch. Its completion window runs on. Pausing twice is once.

    Raises:
        BatchMissing: no batch of this site has that id.
        BatchEnded: nothing of it is left to do.
    """
    batch = find_batch(site, public_id)
    pauses.create_pause(batch, f"{SITE_ACTOR_PREFIX}{site.slug}", reason)
    return batch


def resume(site: Site, public_id: str) -> Batch:
    """Let the batch go on; one that is not paused stays as it is.

    Raises:
        BatchMissing: no batch of this site has that id.
        PausedByOperator: the site did not pause it.
    """
    with transaction.atomic():
        # Locked, as it is by who pauses it: an operator's pause of this moment stays.
        batch = find_batch(site, public_id, lock=True)
        if pauses.is_paused_by_operator(batch):
            raise PausedByOperator
        pauses.delete_pause(batch)
    return batch

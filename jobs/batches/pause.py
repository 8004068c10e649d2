"""Hold a batch back, and let it go on. What runs already goes on."""

from django.db import transaction

from jobs.batches.read import find_batch
from jobs.errors import BatchEnded
from jobs.models import Batch, BatchState, Pause
from jobs.tasks import bell
from tenants.models import Site

#: There is something left to hold back.
PAUSABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)


def pause(site: Site, public_id: str, *, actor: str, reason: str = "") -> Batch:
    """Claim nothing more of the batch. Its completion window runs on. Pausing twice is once.

    Raises:
        BatchMissing: no batch of this site has that id.
        BatchEnded: nothing of it is left to do.
    """
    with transaction.atomic():
        batch = find_batch(site, public_id, lock=True)
        if batch.state not in PAUSABLE:
            raise BatchEnded(batch.state)
        Pause.objects.get_or_create(batch=batch, defaults={"actor": actor[:150], "reason": reason[:200]})
    return batch


def resume(site: Site, public_id: str) -> Batch:
    """Let the batch go on; one that is not paused stays as it is. Raises `BatchMissing`."""
    with transaction.atomic():
        batch = find_batch(site, public_id)
        Pause.objects.filter(batch=batch).delete()
        transaction.on_commit(bell.ring)
    return batch

"""Hold a batch back, and let it go on, as its site asks for it. What runs already goes on."""

from jobs import pauses
from jobs.batches.read import find_batch
from jobs.errors import PausedByOperator
from jobs.models import Batch, Pause
from tenants.models import Site


def pause(site: Site, public_id: str, reason: str = "") -> Batch:
    """Claim nothing more of the batch. Its completion window runs on. Pausing twice is once.

    Raises:
        BatchMissing: no batch of this site has that id.
        BatchEnded: nothing of it is left to do.
    """
    batch = find_batch(site, public_id)
    pauses.hold(batch, _by(site), reason)
    return batch


def resume(site: Site, public_id: str) -> Batch:
    """Let the batch go on; one that is not paused stays as it is.

    Raises:
        BatchMissing: no batch of this site has that id.
        PausedByOperator: the site did not pause it.
    """
    batch = find_batch(site, public_id)
    if Pause.objects.filter(batch=batch).exclude(actor=_by(site)).exists():
        raise PausedByOperator
    pauses.release(batch)
    return batch


def _by(site: Site) -> str:
    # No operator's name has a space before the slug of a site.
    return f"site {site.slug}"

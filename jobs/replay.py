"""Try a job again that ended without success: a new job, for terminal rows never change."""

from django.db import transaction

from jobs.errors import NotReplayable
from jobs.models import DEFAULT_QUEUE, Job, JobState
from jobs.payload import body_of, to_request
from jobs.read import find_job
from jobs.submit import check_allowed
from jobs.tasks import bell
from tenants.models import Site

REPLAYABLE = (JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


def replay(
    site: Site,
    public_id: str,
    request_id: str = "",
    *,
    only_model: str | None = None,
    max_tokens_cap: int | None = None,
    allows_dearer: bool = True,
) -> Job:
    """Submit the same request as a new job, which names the old one as `replay_of`.

    Raises:
        JobNotFound: no job of this site has that id.
        NotReplayable: it is still under way, or succeeded.
        UnreadablePayload: what was stored of it is broken.
        ErasedPayload: it was erased.
        InvalidBody, ModelNotAllowed: what was allowed then is not allowed now, or not to this caller.
    """
    old = find_job(site, public_id)
    if old.state not in REPLAYABLE:
        raise NotReplayable(old.state)
    check_allowed(site, to_request(old.kind, body_of(old)), only_model, max_tokens_cap, allows_dearer)
    with transaction.atomic():
        new = Job.objects.create(
            site_id=old.site_id,
            kind=old.kind,
            model=old.model,
            provider=old.provider,
            # A member that is tried again by itself is a job like any other.
            queue=DEFAULT_QUEUE if old.batch_id else old.queue,
            priority=old.priority,
            request_hash=old.request_hash,
            payload=old.payload,
            payload_version=old.payload_version,
            metadata=old.metadata,
            request_id=request_id,
            max_attempts=old.max_attempts,
            replay_of=old,
        )
        transaction.on_commit(bell.ring)
    return new

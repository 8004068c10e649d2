"""Try a job again that ended without success: a new job, for terminal rows never change."""

from django.db import transaction

from jobs.errors import NotReplayable
from jobs.models import Job, JobState
from jobs.read import find_job
from jobs.tasks import bell
from tenants.models import Site

REPLAYABLE = (JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


def replay(site: Site, public_id: str, request_id: str = "") -> Job:
    """Submit the same request as a new job, which names the old one as `replay_of`.

    Raises:
        JobNotFound: no job of this site has that id.
        NotReplayable: it is still under way, or succeeded.
    """
    old = find_job(site, public_id)
    if old.state not in REPLAYABLE:
        raise NotReplayable(old.state)
    with transaction.atomic():
        new = Job.objects.create(
            site_id=old.site_id,
            kind=old.kind,
            model=old.model,
            queue=old.queue,
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

"""Retries a job that ended without success, as a new job: terminal rows never change."""

from django.db import transaction

from jobs.errors import JobNotRetryable
from jobs.models import DEFAULT_QUEUE, Job, JobState
from jobs.payload import PAYLOAD_VERSION, encode_body, load_body
from jobs.permit import permit_body
from jobs.read import find_job
from jobs.tasks import bell
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

RETRYABLE = (JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


def retry(site: Site, public_id: str, grant: Grant = UNRESTRICTED, request_id: str = "") -> Job:
    """Submit the same request as a new job, which names the old one as `retry_of`.

    Raises:
        JobNotFound: no job of this site has that id.
        JobNotRetryable: it has not ended yet, or succeeded.
        UnreadablePayload: the stored request cannot be decrypted or decoded.
        ErasedPayload: the stored request was erased.
        InvalidBody, ModelNotAllowed, UnknownModel, RequestTooLong: as for a new job (`jobs.submit`).
    """
    old = find_job(site, public_id)
    if old.state not in RETRYABLE:
        raise JobNotRetryable(old.state)
    permitted = permit_body(site, grant, old.kind, load_body(old))
    with transaction.atomic():
        new = Job.objects.create(
            site_id=old.site_id,
            kind=old.kind,
            model=old.model,
            provider=permitted.provider,
            # A member of a batch that is retried individually becomes an ordinary job.
            queue=DEFAULT_QUEUE if old.batch_id else old.queue,
            priority=old.priority,
            request_hash=old.request_hash,
            payload=encode_body(permitted.body),
            payload_version=PAYLOAD_VERSION,
            metadata=old.metadata,
            request_id=request_id,
            max_attempts=old.max_attempts,
            retry_of=old,
        )
        transaction.on_commit(bell.ring)
    return new

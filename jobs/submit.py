"""Submits a job: the row first, the doorbell after commit."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction

from core import clock
from core.crash import CrashPoint, crash_point
from jobs.errors import InvalidTime
from jobs.models import Job, JobKind
from jobs.payload import PAYLOAD_VERSION, encode_body
from jobs.permit import PermittedBody, permit_body
from jobs.priorities import NORMAL_PRIORITY
from jobs.tasks import bell
from tenants.errors import IdempotencyConflict
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

IDEMPOTENCY_CONSTRAINT = "one_job_per_site_and_idempotency_key"


@dataclass(frozen=True, slots=True)
class JobSubmission:
    """A job as a site submits it. `body` is a request in the wire format of its kind."""

    kind: JobKind
    body: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    idempotency_scope: str = ""
    priority: int = NORMAL_PRIORITY
    max_attempts: int | None = None
    available_at: datetime | None = None
    expires_at: datetime | None = None
    request_id: str = ""
    grant: Grant = UNRESTRICTED


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """The job. `created` is False if it was found by its idempotency key."""

    job: Job
    created: bool


def submit(site: Site, submission: JobSubmission) -> SubmittedJob:
    """Store the job, ring the doorbell, and return it. From then on the job reaches a terminal state in any case.

    Raises:
        InvalidBody: the body is not a valid request of its kind, or exceeds the grant.
        InvalidTime: it would expire before it can start.
        ModelNotAllowed: the site, or the grant, may not use the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it exceeds the context window of the model.
        IdempotencyConflict: the key was used for a different request.
    """
    # First, so that a repeated submission is accepted even if limits or routes have changed since.
    if duplicate := _find_duplicate(site, submission):
        return SubmittedJob(duplicate, created=False)
    _check_times(submission)
    permitted = permit_body(site, submission.grant, submission.kind, submission.body)
    return _store(site, submission, _to_row(site, submission, permitted))


def _check_times(submission: JobSubmission) -> None:
    earliest = max(filter(None, (clock.now(), submission.available_at)))
    if submission.expires_at is not None and submission.expires_at <= earliest:
        raise InvalidTime("Must be in the future, and after available_at.", "expires_at")


def _to_row(site: Site, submission: JobSubmission, permitted: PermittedBody) -> Job:
    available_at = {"available_at": submission.available_at} if submission.available_at else {}
    return Job(
        site=site,
        kind=submission.kind,
        model=permitted.request.model,
        provider=permitted.provider,
        priority=submission.priority,
        idempotency_key=submission.idempotency_key,
        idempotency_scope=submission.idempotency_scope,
        request_hash=request_hash(submission),
        payload=encode_body(permitted.body),
        payload_version=PAYLOAD_VERSION,
        metadata=submission.metadata,
        request_id=submission.request_id,
        max_attempts=submission.max_attempts or settings.JOB_MAX_ATTEMPTS,
        expires_at=submission.expires_at,
        **available_at,
    )


def request_hash(submission: JobSubmission) -> bytes:
    """Return the SHA-256 of the request, independent of the order of its keys."""
    fields = (
        submission.kind,
        submission.body,
        submission.metadata,
        submission.priority,
        submission.max_attempts,
        submission.available_at,
        submission.expires_at,
    )
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).digest()


def _store(site: Site, submission: JobSubmission, row: Job) -> SubmittedJob:
    if submission.idempotency_key is None:
        # Nothing can conflict, and one statement is its own transaction: this saves two round trips to Postgres.
        crash_point(CrashPoint.BEFORE_COMMIT)
        _insert(row)
        return SubmittedJob(row, created=True)
    try:
        with transaction.atomic():
            _insert(row)
            crash_point(CrashPoint.BEFORE_COMMIT)
    except IntegrityError as error:
        # The unique constraint decides between concurrent submissions; the later one finds the first job.
        duplicate = _find_duplicate(site, submission) if IDEMPOTENCY_CONSTRAINT in str(error) else None
        if duplicate is None:
            raise
        return SubmittedJob(duplicate, created=False)
    return SubmittedJob(row, created=True)


def _insert(row: Job) -> None:
    row.save(force_insert=True)
    transaction.on_commit(partial(crash_point, CrashPoint.AFTER_COMMIT))
    transaction.on_commit(bell.ring)


def _find_duplicate(site: Site, submission: JobSubmission) -> Job | None:
    """Return the job with the same key. Raises `IdempotencyConflict` if that was a different request."""
    if submission.idempotency_key is None:
        return None
    key = {"idempotency_scope": submission.idempotency_scope, "idempotency_key": submission.idempotency_key}
    job = Job.objects.defer("payload").filter(site=site, **key).first()
    if job is not None and bytes(job.request_hash) != request_hash(submission):
        raise IdempotencyConflict
    return job

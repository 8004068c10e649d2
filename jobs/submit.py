"""Accept a job: the row first, the doorbell after commit."""

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
from jobs.tasks import bell
from tenants.errors import IdempotencyConflict
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

NORMAL_PRIORITY = 100
IDEMPOTENCY_CONSTRAINT = "one_job_per_site_and_idempotency_key"


@dataclass(frozen=True, slots=True)
class JobSubmission:
    """What a site wants done. `body` is a request in the wire of its kind."""

    kind: JobKind
    body: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    priority: int = NORMAL_PRIORITY
    max_attempts: int | None = None
    available_at: datetime | None = None
    expires_at: datetime | None = None
    request_id: str = ""
    grant: Grant = UNRESTRICTED


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """The job, and whether this submit made it (or found it by its idempotency key)."""

    job: Job
    created: bool


def submit(site: Site, wanted: JobSubmission) -> SubmittedJob:
    """Store the job and ring; return it. After this returns the job will end, whatever happens.

    Raises:
        InvalidBody: the body is not a valid request of its kind, or exceeds what the grant allows.
        InvalidTime: it would expire before it can begin.
        ModelNotAllowed: the site, or the grant, may not use the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it is longer than the model takes.
        IdempotencyConflict: the key was used for another request.
    """
    # First of all: what was accepted once is not refused when it is repeated, whatever has changed since.
    if found := _find_duplicate(site, wanted):
        return SubmittedJob(found, created=False)
    _check_times(wanted)
    return _store(site, wanted, _to_row(site, wanted, permit_body(site, wanted.grant, wanted.kind, wanted.body)))


def _check_times(wanted: JobSubmission) -> None:
    earliest = max(filter(None, (clock.now(), wanted.available_at)))
    if wanted.expires_at is not None and wanted.expires_at <= earliest:
        raise InvalidTime("Must be in the future, and after available_at.", "expires_at")


def _to_row(site: Site, wanted: JobSubmission, permitted: PermittedBody) -> Job:
    given = {"available_at": wanted.available_at} if wanted.available_at else {}
    return Job(
        site=site,
        kind=wanted.kind,
        model=permitted.request.model,
        provider=permitted.provider,
        priority=wanted.priority,
        idempotency_key=wanted.idempotency_key,
        request_hash=request_hash(wanted),
        payload=encode_body(permitted.body),
        payload_version=PAYLOAD_VERSION,
        metadata=wanted.metadata,
        request_id=wanted.request_id,
        max_attempts=wanted.max_attempts or settings.JOB_MAX_ATTEMPTS,
        expires_at=wanted.expires_at,
        **given,
    )


def request_hash(wanted: JobSubmission) -> bytes:
    """Return SHA-256 of what was asked for, whatever the order of its keys."""
    what = (
        wanted.kind,
        wanted.body,
        wanted.metadata,
        wanted.priority,
        wanted.max_attempts,
        wanted.available_at,
        wanted.expires_at,
    )
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).digest()


def _store(site: Site, wanted: JobSubmission, row: Job) -> SubmittedJob:
    if wanted.idempotency_key is None:
        # Nothing can clash, and one statement is a transaction of its own: two round trips to Postgres fewer.
        crash_point(CrashPoint.BEFORE_COMMIT)
        _insert(row)
        return SubmittedJob(row, created=True)
    try:
        with transaction.atomic():
            _insert(row)
            crash_point(CrashPoint.BEFORE_COMMIT)
    except IntegrityError as error:
        # The unique (site, key) decides between two submits at once; whoever came second finds the first.
        found = _find_duplicate(site, wanted) if IDEMPOTENCY_CONSTRAINT in str(error) else None
        if found is None:
            raise
        return SubmittedJob(found, created=False)
    return SubmittedJob(row, created=True)


def _insert(row: Job) -> None:
    row.save(force_insert=True)
    transaction.on_commit(partial(crash_point, CrashPoint.AFTER_COMMIT))
    transaction.on_commit(bell.ring)


def _find_duplicate(site: Site, wanted: JobSubmission) -> Job | None:
    """Return the job that was made under the key. Raises `IdempotencyConflict` if another one was asked for then."""
    if wanted.idempotency_key is None:
        return None
    found = Job.objects.defer("payload").filter(site=site, idempotency_key=wanted.idempotency_key).first()
    if found is not None and bytes(found.request_hash) != request_hash(wanted):
        raise IdempotencyConflict
    return found

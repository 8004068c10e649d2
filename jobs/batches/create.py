"""Creates a batch: with its members if they were posted, or for a worker to read them from a file."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from core import clock
from jobs.batches.insert import insert_members
from jobs.batches.requests import BatchMember, BatchRequestReader, BatchRules
from jobs.errors import InvalidFile
from jobs.files.read import find_file
from jobs.models import Batch, BatchState, File, FilePurpose, JobKind
from jobs.priorities import NORMAL_PRIORITY
from jobs.tasks import bell
from tenants.errors import IdempotencyConflict
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

IDEMPOTENCY_CONSTRAINT = "one_batch_per_site_and_idempotency_key"

#: A completion window, from an hour to a week.
WINDOW_PATTERN = re.compile(r"(?P<count>[1-9][0-9]{0,2})(?P<unit>[hd])")
MIN_WINDOW, MAX_WINDOW = timedelta(hours=1), timedelta(days=7)


@dataclass(frozen=True, slots=True)
class BatchSubmission:
    """A batch as a site submits it. Its requests are in a file, or in `requests`."""

    kind: JobKind
    input_file_id: str | None = None
    requests: Sequence[msgspec.Raw] = field(default=(), repr=False)
    completion_window: str = "24h"
    metadata: dict[str, str] = field(default_factory=dict)
    priority: int = NORMAL_PRIORITY
    max_attempts: int | None = None
    progress_seconds: int | None = None
    output_expires_seconds: int | None = None
    idempotency_key: str | None = None
    idempotency_scope: str = ""
    request_id: str = ""
    grant: Grant = UNRESTRICTED


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """The batch. `created` is False if it was found by its idempotency key."""

    batch: Batch
    created: bool


def parse_window(text: str) -> timedelta | None:
    """Parse a completion window like `24h` or `7d`; None if it is malformed, or shorter or longer than allowed."""
    match = WINDOW_PATTERN.fullmatch(text)
    if match is None:
        return None
    count = int(match["count"])
    window = timedelta(hours=count) if match["unit"] == "h" else timedelta(days=count)
    return window if MIN_WINDOW <= window <= MAX_WINDOW else None


def create(site: Site, submission: BatchSubmission) -> CreatedBatch:
    """Store the batch and ring the doorbell. From then on the batch reaches a terminal state in any case.

    Raises:
        InvalidBatch: some posted requests are invalid. (Those of a file are read later.)
        FileNotFound, InvalidFile: the file does not exist, or is not an input file of batches.
        IdempotencyConflict: the key was used for a different batch.
    """
    digest = request_hash(submission)
    # First, so that a repeated submission is accepted even if limits or routes have changed since.
    if duplicate := _find_duplicate(site, submission, digest):
        return CreatedBatch(duplicate, created=False)
    if submission.input_file_id is not None:
        file = find_input_file(site, submission.input_file_id)
        return _store(site, submission, _to_row(site, submission, digest, file=file), [])
    reader = BatchRequestReader(rules_of(site, submission))
    # All are read before the transaction starts.
    members = [parsed.member for parsed in reader.read_list(submission.requests)]
    reader.check()
    row = _to_row(site, submission, digest, model=common_model(reader.models), total=len(members))
    return _store(site, submission, row, members)


def rules_of(site: Site, submission: BatchSubmission) -> BatchRules:
    return BatchRules(site, submission.kind, submission.grant)


def find_input_file(site: Site, file_id: str) -> File:
    """Return the site's file if it is an input file of batches. Raises `FileNotFound` and `InvalidFile`."""
    file = find_file(site, file_id)
    if file.purpose != FilePurpose.BATCH:
        raise InvalidFile("The input of a batch must be a file whose purpose is 'batch'.", "input_file_id")
    return file


def common_model(models: Collection[str]) -> str:
    """Return the model of all members; empty if they differ."""
    return next(iter(models)) if len(models) == 1 else ""


def request_hash(submission: BatchSubmission) -> bytes:
    """Return the SHA-256 of the batch, independent of the order of keys."""
    fields = (
        submission.kind,
        submission.input_file_id,
        submission.completion_window,
        submission.metadata,
        submission.priority,
        submission.max_attempts,
        submission.progress_seconds,
        submission.output_expires_seconds,
    )
    digest = hashlib.sha256(msgspec.json.encode(fields, order="sorted"))
    for request in submission.requests:
        digest.update(_canonical(request) if submission.idempotency_key else request)
    return digest.digest()


def _canonical(request: msgspec.Raw) -> bytes:
    try:
        return b"\n" + msgspec.json.encode(msgspec.json.decode(request), order="sorted")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # It is rejected later, when it is read.
        return b"\n" + bytes(request)


def _to_row(
    site: Site, submission: BatchSubmission, digest: bytes, *, file: File | None = None, model: str = "", total: int = 0
) -> Batch:
    is_posted = file is None
    return Batch(
        site=site,
        kind=submission.kind,
        model=model,
        total=total,
        state=BatchState.IN_PROGRESS if is_posted else BatchState.VALIDATING,
        in_progress_at=Now() if is_posted else None,
        input_file=file,
        idempotency_key=submission.idempotency_key,
        idempotency_scope=submission.idempotency_scope,
        request_hash=digest,
        metadata=submission.metadata,
        request_id=submission.request_id,
        priority=submission.priority,
        max_attempts=submission.max_attempts or settings.JOB_MAX_ATTEMPTS,
        grant=submission.grant,
        progress_seconds=submission.progress_seconds,
        completion_window=submission.completion_window,
        output_expires_seconds=submission.output_expires_seconds,
        expires_at=clock.now() + (parse_window(submission.completion_window) or MAX_WINDOW),
    )


def _store(site: Site, submission: BatchSubmission, row: Batch, members: Sequence[BatchMember]) -> CreatedBatch:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            insert_members(row, members)
            transaction.on_commit(bell.ring)
    except IntegrityError as error:
        # The unique constraint (site, key) decides between concurrent calls; the later one finds the first batch.
        is_conflict = IDEMPOTENCY_CONSTRAINT in str(error)
        duplicate = _find_duplicate(site, submission, bytes(row.request_hash)) if is_conflict else None
        if duplicate is None:
            raise
        return CreatedBatch(duplicate, created=False)
    row.refresh_from_db()
    return CreatedBatch(row, created=True)


def _find_duplicate(site: Site, submission: BatchSubmission, digest: bytes) -> Batch | None:
    """Return the batch with the same key. Raises `IdempotencyConflict` if that was a different batch."""
    if submission.idempotency_key is None:
        return None
    key = {"idempotency_scope": submission.idempotency_scope, "idempotency_key": submission.idempotency_key}
    batch = Batch.objects.filter(site=site, **key).first()
    if batch is not None and bytes(batch.request_hash) != digest:
        raise IdempotencyConflict
    return batch

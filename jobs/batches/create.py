"""Accept a batch: with its members, if they came with it, or to be read from a file by a worker."""

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
from jobs.submit import NORMAL_PRIORITY
from jobs.tasks import bell
from tenants.errors import IdempotencyConflict
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

IDEMPOTENCY_CONSTRAINT = "one_batch_per_site_and_idempotency_key"

#: From an hour to a week.
WINDOW_PATTERN = re.compile(r"(?P<count>[1-9][0-9]{0,2})(?P<unit>[hd])")
MIN_WINDOW, MAX_WINDOW = timedelta(hours=1), timedelta(days=7)


@dataclass(frozen=True, slots=True)
class BatchSubmission:
    """What a site wants done. Its requests are in a file, or they are here."""

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
    request_id: str = ""
    grant: Grant = UNRESTRICTED


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """The batch, and whether this call made it (or found it by its idempotency key)."""

    batch: Batch
    created: bool


def parse_window(text: str) -> timedelta | None:
    """Read a completion window like `24h` or `7d`; None if it is none that we keep."""
    found = WINDOW_PATTERN.fullmatch(text)
    if found is None:
        return None
    count = int(found["count"])
    window = timedelta(hours=count) if found["unit"] == "h" else timedelta(days=count)
    return window if MIN_WINDOW <= window <= MAX_WINDOW else None


def create(site: Site, wanted: BatchSubmission) -> CreatedBatch:
    """Store the batch and ring. After this returns the batch will end, whatever happens.

    Raises:
        InvalidBatch: its requests, as they were posted, cannot be taken. (Those of a file are read later.)
        FileMissing, UnfitFile: the file is not there, or not for batches.
        IdempotencyConflict: the key was used for another batch.
    """
    digest = request_hash(wanted)
    # First of all: what was accepted once is not refused when it is repeated, whatever has changed since.
    if found := _find_duplicate(site, wanted, digest):
        return CreatedBatch(found, created=False)
    if wanted.input_file_id is not None:
        file = find_input_file(site, wanted.input_file_id)
        return _store(site, wanted, _to_row(site, wanted, digest, file=file), [])
    reader = BatchRequestReader(rules_of(site, wanted))
    # All of them are read before the transaction begins.
    members = [read.member for read in reader.read_list(wanted.requests)]
    reader.check()
    row = _to_row(site, wanted, digest, model=common_model(reader.models), total=len(members))
    return _store(site, wanted, row, members)


def rules_of(site: Site, wanted: BatchSubmission) -> BatchRules:
    return BatchRules(site, wanted.kind, wanted.grant)


def find_input_file(site: Site, file_id: str) -> File:
    """Return the site's file, if a batch can be made of it. Raises `FileMissing` and `InvalidFile`."""
    file = find_file(site, file_id)
    if file.purpose != FilePurpose.BATCH:
        raise InvalidFile("A batch is made of a file whose purpose is 'batch'.", "input_file_id")
    return file


def common_model(models: Collection[str]) -> str:
    """Return the model of all members; empty where they differ."""
    return next(iter(models)) if len(models) == 1 else ""


def request_hash(wanted: BatchSubmission) -> bytes:
    """Return SHA-256 of what was asked for, whatever the order of the keys."""
    what = (
        wanted.kind,
        wanted.input_file_id,
        wanted.completion_window,
        wanted.metadata,
        wanted.priority,
        wanted.max_attempts,
        wanted.progress_seconds,
        wanted.output_expires_seconds,
    )
    digest = hashlib.sha256(msgspec.json.encode(what, order="sorted"))
    for request in wanted.requests:
        digest.update(_canonical(request) if wanted.idempotency_key else request)
    return digest.digest()


def _canonical(request: msgspec.Raw) -> bytes:
    try:
        return b"\n" + msgspec.json.encode(msgspec.json.decode(request), order="sorted")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # It will be refused in a moment.
        return b"\n" + bytes(request)


def _to_row(
    site: Site, wanted: BatchSubmission, digest: bytes, *, file: File | None = None, model: str = "", total: int = 0
) -> Batch:
    is_posted = file is None
    return Batch(
        site=site,
        kind=wanted.kind,
        model=model,
        total=total,
        state=BatchState.IN_PROGRESS if is_posted else BatchState.VALIDATING,
        in_progress_at=Now() if is_posted else None,
        input_file=file,
        idempotency_key=wanted.idempotency_key,
        request_hash=digest,
        metadata=wanted.metadata,
        request_id=wanted.request_id,
        priority=wanted.priority,
        max_attempts=wanted.max_attempts or settings.JOB_MAX_ATTEMPTS,
        grant=wanted.grant,
        progress_seconds=wanted.progress_seconds,
        completion_window=wanted.completion_window,
        output_expires_seconds=wanted.output_expires_seconds,
        expires_at=clock.now() + (parse_window(wanted.completion_window) or MAX_WINDOW),
    )


def _store(site: Site, wanted: BatchSubmission, row: Batch, members: Sequence[BatchMember]) -> CreatedBatch:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            insert_members(row, members)
            transaction.on_commit(bell.ring)
    except IntegrityError as error:
        # The unique (site, key) decides between two calls at once; whoever came second finds the first.
        found = _find_duplicate(site, wanted, bytes(row.request_hash)) if IDEMPOTENCY_CONSTRAINT in str(error) else None
        if found is None:
            raise
        return CreatedBatch(found, created=False)
    row.refresh_from_db()
    return CreatedBatch(row, created=True)


def _find_duplicate(site: Site, wanted: BatchSubmission, digest: bytes) -> Batch | None:
    """Return the batch that was made under the key. Raises `IdempotencyConflict` if it was another one."""
    if wanted.idempotency_key is None:
        return None
    found = Batch.objects.filter(site=site, idempotency_key=wanted.idempotency_key).first()
    if found is not None and bytes(found.request_hash) != digest:
        raise IdempotencyConflict
    return found

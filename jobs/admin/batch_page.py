"""The page of a batch, read in a number of queries that does not depend on its size."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.template.defaultfilters import filesizeformat

from core.admin_ui.model_admin import NO_VALUE
from core.humanize import format_age, format_moment
from jobs.admin.batch_progress import BatchProgressView, batch_ended_at, read_progress
from jobs.admin.history import AuditRow, EventRow, audit_rows, deliveries_of, event_rows
from jobs.admin.presentation import Fact, Visibility
from jobs.batches.progress import counts_of
from jobs.errors import MAX_ISSUES
from jobs.models import Batch, File
from jobs.priorities import priority_name


@dataclass(frozen=True, slots=True)
class FileRow:
    what: str
    name: str
    public_id: str
    size: str
    url: str | None


@dataclass(frozen=True, slots=True)
class IssueRow:
    """A validation error. `place` is a line of the file or a field of the request."""

    place: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class BatchPage:
    live: BatchProgressView
    facts: tuple[Fact, ...]
    files: tuple[FileRow, ...]
    issues: tuple[IssueRow, ...]
    #: There may be more errors than are stored.
    has_more_issues: bool
    metadata: str
    events: tuple[EventRow, ...]
    audit: tuple[AuditRow, ...]
    visibility: Visibility


def read_batch_page(batch: Batch, visibility: Visibility, now: datetime) -> BatchPage:
    """Read the page. Requests and answers are not read."""
    deliveries = deliveries_of(batch.id) if visibility.webhooks else {}
    return BatchPage(
        live=read_progress(batch, visibility, now),
        facts=tuple(_facts(batch, visibility, now)),
        files=tuple(_files(batch, visibility)),
        issues=tuple(_issues(batch)),
        has_more_issues=len(batch.errors) >= MAX_ISSUES,
        metadata=json.dumps(batch.metadata, indent=2, ensure_ascii=False) if batch.metadata else "",
        events=tuple(event_rows(deliveries, visibility, now)),
        audit=tuple(audit_rows(batch.public_id)) if visibility.audit else (),
        visibility=visibility,
    )


def cancel_consequences(batch: Batch) -> tuple[str, ...]:
    """Describe what canceling the batch now does."""
    counts = counts_of([batch])[batch.id]
    if not counts.total:
        return ("Reading its file stops, and none of its requests is started.",)
    return (
        f"{counts.queued:,} queued: canceled before they are sent.",
        f"{counts.running:,} running: their workers stop them.",
        f"{counts.ended:,} ended: unchanged; their usage is billed.",
    )


def _facts(batch: Batch, visibility: Visibility, now: datetime) -> Iterator[Fact]:
    site = batch.site
    yield Fact("Site", site.name, f"{site.slug}, {site.public_id}", visibility.link_to(site))
    yield Fact("Kind", batch.get_kind_display())
    if batch.model:
        yield Fact("Model", batch.model, is_code=True)
    else:
        yield Fact("Model", "several" if batch.total else NO_VALUE)
    yield from _moments(batch, now)
    yield Fact("Priority", priority_name(batch.priority))
    yield Fact("Attempts", f"up to {batch.max_attempts} per request")
    if batch.progress_seconds is not None:
        yield Fact("Progress events", f"at most every {batch.progress_seconds} s")
    if batch.grant.only_model:
        yield Fact("Model of the token", batch.grant.only_model, is_code=True)
    if batch.grant.max_tokens is not None:
        yield Fact("Max output tokens of the token", f"{batch.grant.max_tokens:,}")
    if not batch.grant.allows_premium_tiers:
        yield Fact("Service tiers of the token", "standard only")
    if batch.grant.unknown:
        names = ", ".join(name for name, _ in batch.grant.unknown)
        yield Fact(
            "Unknown restrictions of the token", names, "Stored by a newer version; nothing is permitted under them"
        )
    if batch.idempotency_key is not None:
        yield Fact("Idempotency key", batch.idempotency_key, is_code=True)
    if batch.request_id:
        yield Fact("Request ID", batch.request_id, is_code=True)
    if batch.retry_of:
        old = batch.retry_of
        yield Fact("Retry of", old.public_id, url=visibility.link_to(old), is_code=True)
    for new in batch.retries.only("id").order_by("id"):
        yield Fact("Retried as", new.public_id, url=visibility.link_to(new), is_code=True)


def _moments(batch: Batch, now: datetime) -> Iterator[Fact]:
    ended_at = batch_ended_at(batch)
    named = (
        ("Created", batch.created_at),
        ("Started", batch.in_progress_at),
        ("Cancel requested", batch.cancelling_at),
        ("Ended", ended_at),
    )
    for name, at in named:
        if at is not None:
            yield Fact(name, format_moment(at), f"{format_age(at, now)} ago")
    if ended_at is None:
        left = f"in {format_age(now, batch.expires_at)}" if batch.expires_at > now else "now"
        yield Fact("Expires", format_moment(batch.expires_at), f"{left}: requests that have not ended by then expire")


def _files(batch: Batch, visibility: Visibility) -> Iterator[FileRow]:
    for what, file in (("Requests", batch.input_file), ("Answers", batch.output_file), ("Errors", batch.error_file)):
        if file is not None:
            yield FileRow(what, file.filename, file.public_id, _size(file), visibility.link_to(file))


def _size(file: File) -> str:
    return filesizeformat(file.bytes).replace("\N{NO-BREAK SPACE}", " ")


def _issues(batch: Batch) -> Iterator[IssueRow]:
    for each in batch.errors:
        line, param = each.get("line"), each.get("param")
        place = ", ".join(filter(None, (f"line {line:,}" if line is not None else "", param)))
        yield IssueRow(place, each.get("code", ""), each.get("message", ""))

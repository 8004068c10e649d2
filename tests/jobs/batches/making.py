"""Helpers that create batches and end their members."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from django.db.models.functions import Now

from jobs.batches.create import BatchSubmission, create
from jobs.models import Batch, Job, JobKind, JobState
from tenants.models import Site

BODY: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "rosebud"}]}
ANSWER: dict[str, Any] = {"id": "chatcmpl-1", "choices": []}


def item(custom_id: Any, **changes: Any) -> dict[str, Any]:
    """A request as it is posted. A field with the value `...` is omitted."""
    fields = {"custom_id": custom_id, "body": BODY, **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def line(custom_id: Any, **changes: Any) -> dict[str, Any]:
    """A request as in a line of a file."""
    return item(custom_id, **{"method": "POST", "url": "/v1/chat/completions", **changes})


def to_file(lines: Sequence[Any]) -> bytes:
    """Encode lines as JSON Lines; lines that are bytes are used unchanged."""
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


def raw(items: Sequence[Any]) -> list[msgspec.Raw]:
    return [msgspec.Raw(each if isinstance(each, bytes) else json.dumps(each).encode()) for each in items]


def submission_of(items: Sequence[Any], **changes: Any) -> BatchSubmission:
    return BatchSubmission(**{"kind": JobKind.CHAT, "requests": raw(items), **changes})


def make_batch(site: Site, count: int = 3, **changes: Any) -> Batch:
    """A batch in progress with members r1, r2, …"""
    return create(site, submission_of([item(f"r{n}") for n in range(1, count + 1)], **changes)).batch


def end(batch: Batch, custom_id: str, state: JobState = JobState.SUCCEEDED, **fields: Any) -> Job:
    """Move a member to a terminal state."""
    job = Job.objects.get(batch=batch, custom_id=custom_id)
    job.state, job.finished_at = state, Now()
    if state == JobState.SUCCEEDED:
        job.result = json.dumps({**ANSWER, "custom": custom_id}).encode()
    for name, value in fields.items():
        setattr(job, name, value)
    job.save()
    return job


def states_of(batch: Batch) -> dict[str, str]:
    return dict(Job.objects.filter(batch=batch).order_by("id").values_list("custom_id", "state"))

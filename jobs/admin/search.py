"""Search of jobs and batches. It matches exact values: searching for parts would read the whole table."""

from uuid import UUID

from django.db.models import Q

from core.ids import InvalidId, from_public, parse_id
from jobs.batches.read import parse_batch_id
from jobs.models import Batch, File, Job
from tenants.models import Site
from webhooks.models import Event

JOB_SEARCH_HELP = "job_…, batch_…, evt_…, site_…, idempotency key, request ID, custom_id, or metadata as name=value"
BATCH_SEARCH_HELP = "batch_…, file_…, evt_…, site_… or its slug, idempotency key, or request ID"


def jobs_matching(word: str) -> Q:
    """Return the condition for jobs that match a search word."""
    if (job_id := parse_job_id(word)) is not None:
        return Q(id=job_id)
    if (batch_id := _parse_public(Batch.ID_PREFIX, word)) is not None:
        return Q(batch=batch_id)
    if (event_id := _parse_public(Event.ID_PREFIX, word)) is not None:
        return Q(id__in=Event.objects.filter(id=event_id).values("subject_id"))
    if (site_id := _parse_public(Site.ID_PREFIX, word)) is not None:
        return Q(site=site_id)
    by_name = Q(idempotency_key=word) | Q(request_id=word) | Q(custom_id=word)
    name, separator, value = word.partition("=")
    return by_name | Q(metadata__contains={name.strip(): value.strip()}) if separator else by_name


def batches_matching(word: str) -> Q:
    """Return the condition for batches that match a search word."""
    if (batch_id := parse_batch_id(word)) is not None:
        return Q(id=batch_id)
    if (file_id := _parse_public(File.ID_PREFIX, word)) is not None:
        return Q(input_file=file_id) | Q(output_file=file_id) | Q(error_file=file_id)
    if (event_id := _parse_public(Event.ID_PREFIX, word)) is not None:
        return Q(id__in=Event.objects.filter(id=event_id).values("subject_id"))
    if (site_id := _parse_public(Site.ID_PREFIX, word)) is not None:
        return Q(site=site_id)
    return Q(site__slug=word) | Q(idempotency_key=word) | Q(request_id=word)


def parse_job_id(text: str) -> UUID | None:
    """Parse a job's public id or its UUID in the database."""
    return parse_id(Job.ID_PREFIX, text)


def _parse_public(prefix: str, text: str) -> UUID | None:
    try:
        return from_public(prefix, text)
    except InvalidId:
        return None

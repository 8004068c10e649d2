"""Which jobs an operator means by a word. Only whole words count: a part of one would read the whole table."""

from uuid import UUID

from django.db.models import Q

from core.ids import InvalidId, from_public
from jobs.models import Job
from tenants.models import Site
from webhooks.models import Event

HELP = "job_…, evt_…, site_…, idempotency key, request id, or metadata as name=value"


def meant_by(word: str) -> Q:
    """Return the condition for the jobs that a word may mean."""
    if (job_id := read_id(word)) is not None:
        return Q(id=job_id)
    if (event_id := _public(Event.ID_PREFIX, word)) is not None:
        return Q(id__in=Event.objects.filter(id=event_id).values("subject_id"))
    if (site_id := _public(Site.ID_PREFIX, word)) is not None:
        return Q(site=site_id)
    named = Q(idempotency_key=word) | Q(request_id=word)
    name, given, value = word.partition("=")
    return named | Q(metadata__contains={name.strip(): value.strip()}) if given else named


def read_id(text: str) -> UUID | None:
    """Read a job's public id, or the UUID that stands in the database."""
    if (found := _public(Job.ID_PREFIX, text)) is not None:
        return found
    try:
        return UUID(text)
    except ValueError:
        return None


def _public(prefix: str, text: str) -> UUID | None:
    try:
        return from_public(prefix, text)
    except InvalidId:
        return None

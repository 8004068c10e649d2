"""Jobs of a period, found by their ids: these are made in order of time, and always indexed."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from jobs.models import Job

#: An id carries the clock of the process that took the job in, `created_at` that of Postgres. No two differ by more.
CLOCKS_DIFFER = timedelta(hours=1)


def created_since(jobs: QuerySet[Job], begin: datetime) -> QuerySet[Job]:
    """Keep the jobs created at that moment or later."""
    return jobs.filter(id__gte=first_id_at(begin - CLOCKS_DIFFER), created_at__gte=begin)


def created_before(jobs: QuerySet[Job], end: datetime) -> QuerySet[Job]:
    """Keep the jobs created before that moment."""
    return jobs.filter(id__lt=first_id_at(end + CLOCKS_DIFFER), created_at__lt=end)


def first_id_at(moment: datetime) -> UUID:
    """Return a UUID that is no greater than any UUIDv7 made at that moment or later."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)

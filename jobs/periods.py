"""Filters jobs by time of creation, using their ids: UUIDv7 are ordered by time and always indexed."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from jobs.models import Job

#: The maximum difference of two clocks: an id has the time of the process that created it, `created_at` of Postgres.
CLOCKS_DIFFER = timedelta(hours=1)


def created_since(jobs: QuerySet[Job], begin: datetime) -> QuerySet[Job]:
    """Filter for jobs created at `begin` or later."""
    return jobs.filter(id__gte=first_id_at(begin - CLOCKS_DIFFER), created_at__gte=begin)


def created_before(jobs: QuerySet[Job], end: datetime) -> QuerySet[Job]:
    """Filter for jobs created before `end`."""
    return jobs.filter(id__lt=first_id_at(end + CLOCKS_DIFFER), created_at__lt=end)


def first_id_at(moment: datetime) -> UUID:
    """Return a UUID that is not greater than any UUIDv7 created at `moment` or later."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)

"""Erase what was kept long enough: prompts and answers go, accounts stay. And remove files that expired."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import or_
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from jobs.models import BatchState, File
from tenants.models import Site

log = structlog.get_logger(__name__)

#: So many jobs in one transaction: their locks are short, and so is each statement.
ROWS = 500
#: So many transactions in one round, whose worker has other things to do. What is left is for the next.
MOST_TRANSACTIONS = 40
#: A century; Postgres cannot reckon back without end.
MOST_DAYS = 36_500
#: Any number that no other advisory lock of this database uses.
RETENTION_LOCK = 0x4E49_4752

# The provider's words about a failure can quote the prompt, so they go too; its code stays.
ERASE = """
WITH due AS (
    SELECT id FROM jobs_job
     WHERE site_id = %(site)s AND erased_at IS NULL AND finished_at < now() - make_interval(days => %(days)s)
     ORDER BY finished_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), silenced AS (
    UPDATE jobs_attempt attempt SET error_message = '' FROM due
     WHERE attempt.job_id = due.id AND attempt.error_message <> ''
)
UPDATE jobs_job job SET payload = NULL, result = NULL, error_message = '', erased_at = now()
  FROM due WHERE job.id = due.id
"""


@dataclass(frozen=True, slots=True)
class Erased:
    """What a round did."""

    jobs: int = 0
    files: int = 0


def tend() -> Erased:
    """Do one round, and note what it did. To be called about once a minute, by any worker."""
    erased = erase()
    if erased != Erased():
        log.info("retention_erased", jobs=erased.jobs, files=erased.files)
    return erased


def erase() -> Erased:
    """Erase prompts, answers and files whose time is over: some thousands at most, and none if another is at it."""
    times = _times()
    return Erased(jobs=_erase_jobs(times), files=_remove_files(times))


def days_of(site: Site) -> int:
    """Return after how many days the site's prompts and answers are erased; 0: never."""
    days: int = settings.JOB_RETENTION_DAYS if site.retention_days is None else site.retention_days
    return days


def _times() -> dict[UUID, int]:
    """Return for how many days each site's are kept; without the sites that keep them for ever."""
    days = {site.id: days_of(site) for site in Site.objects.only("id", "retention_days")}
    return {site_id: min(kept, MOST_DAYS) for site_id, kept in days.items() if kept}


def _erase_jobs(times: Mapping[UUID, int]) -> int:
    erased, transactions = 0, 0
    for site_id, days in times.items():
        found = ROWS
        while found == ROWS and transactions < MOST_TRANSACTIONS:
            found = _erase_some(site_id, days)
            # A site that has nothing to erase must not use up the turn of the next.
            erased, transactions = erased + found, transactions + bool(found)
    return erased


def _erase_some(site_id: UUID, days: int) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        if not _is_alone(cursor):
            return 0
        cursor.execute(ERASE, {"site": site_id, "days": days, "rows": ROWS})
        return int(cursor.rowcount)


def _is_alone(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [RETENTION_LOCK])
    return bool(cursor.fetchone()[0])


def _remove_files(times: Mapping[UUID, int]) -> int:
    return sum(_remove(file_id) for file_id in _over(times).values_list("id", flat=True)[:MOST_TRANSACTIONS])


def _over(times: Mapping[UUID, int]) -> QuerySet[File]:
    """Return the files that expired, and those without an expiry (outputs of batches) that the site's time is over."""
    kept_too_long = [Q(site_id=site_id, created_at__lt=Now() - timedelta(days=days)) for site_id, days in times.items()]
    over = Q(expires_at__lte=Now()) | (Q(expires_at=None) & reduce(or_, kept_too_long, Q(pk__in=[])))
    return File.objects.filter(over).exclude(batches__state=BatchState.VALIDATING).order_by("id")


def _remove(file_id: UUID) -> bool:
    with transaction.atomic():
        file = File.objects.select_for_update(skip_locked=True).filter(id=file_id).first()
        if file is None or file.batches.filter(state=BatchState.VALIDATING).exists():
            return False
        file.delete()
        return True

"""Erase what was kept long enough: prompts and answers go, accounts stay. And remove files that expired."""

from dataclasses import dataclass
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from jobs.models import BatchState, File
from tenants.models import Site

log = structlog.get_logger(__name__)

#: So many jobs in one transaction: their locks are short, and so is each statement.
ROWS_PER_TRANSACTION = 500
#: So many transactions in one round, whose worker has other things to do. What is left is for the next.
MAX_TRANSACTIONS = 40
#: A century; Postgres cannot reckon back without end.
MAX_DAYS = 36_500
#: Any number that no other advisory lock of this database uses.
RETENTION_LOCK = 0x4E49_4752

#: How long a site's are kept; sites that keep them for ever are left out.
SITES = """
SELECT id, LEAST(COALESCE(retention_days, %(days)s), %(most_days)s)::int AS days FROM tenants_site
 WHERE COALESCE(retention_days, %(days)s) > 0
"""

# Sites come in any order, so that none with a great deal to erase is always the first. What is asked of a batch is kept
# until the whole batch has been over for so long: it is read as a whole. The provider's words about a failure can quote
# the prompt, so they go too; its code stays.
ERASE = """
WITH site AS MATERIALIZED ({sites} ORDER BY random()), due AS (
    SELECT job.id FROM site, LATERAL (
        SELECT id FROM jobs_job
         WHERE site_id = site.id AND erased_at IS NULL AND finished_at < now() - make_interval(days => site.days)
           AND (batch_id IS NULL OR now() - make_interval(days => site.days) > (
                SELECT GREATEST(completed_at, failed_at, expired_at, cancelled_at) FROM jobs_batch
                 WHERE id = jobs_job.batch_id))
         ORDER BY finished_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    ) job LIMIT %(rows)s
), silenced AS (
    UPDATE jobs_attempt attempt SET error_message = '' FROM due
     WHERE attempt.job_id = due.id AND attempt.error_message <> ''
)
UPDATE jobs_job job SET payload = NULL, result = NULL, error_message = '', erased_at = now()
  FROM due WHERE job.id = due.id
""".replace("{sites}", SITES)

# Files that expired, and those without an expiry (outputs of batches) that the site's time is over.
EXPIRED_FILES = """
WITH site AS MATERIALIZED ({sites})
SELECT file.id FROM jobs_file file LEFT JOIN site ON site.id = file.site_id
 WHERE (file.expires_at <= now()
        OR file.expires_at IS NULL AND file.created_at < now() - make_interval(days => site.days))
   AND NOT EXISTS (SELECT 1 FROM jobs_batch batch WHERE batch.input_file_id = file.id AND batch.state = 'validating')
 ORDER BY file.id LIMIT %(rows)s
""".replace("{sites}", SITES)


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a round did."""

    jobs: int = 0
    files: int = 0


def run_retention() -> RetentionReport:
    """Do one round, and note what it did. To be called about once a minute, by any worker."""
    erased = purge_expired()
    if erased != RetentionReport():
        log.info("retention_erased", jobs=erased.jobs, files=erased.files)
    return erased


def purge_expired() -> RetentionReport:
    """Erase prompts, answers and files whose time is over: some thousands at most, and none if another is at it."""
    return RetentionReport(jobs=_erase_jobs(), files=_remove_files())


def retention_days_of(site: Site) -> int:
    """Return after how many days the site's prompts and answers are erased; 0: never."""
    days: int = settings.JOB_RETENTION_DAYS if site.retention_days is None else site.retention_days
    return days


def _erase_jobs() -> int:
    erased = 0
    for _ in range(MAX_TRANSACTIONS):
        found = _erase_chunk()
        erased += found
        if found < ROWS_PER_TRANSACTION:
            break
    return erased


def _erase_chunk() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        if not _try_lock(cursor):
            return 0
        cursor.execute(ERASE, _values(ROWS_PER_TRANSACTION))
        return int(cursor.rowcount)


def _values(rows: int) -> dict[str, int]:
    return {"days": settings.JOB_RETENTION_DAYS, "most_days": MAX_DAYS, "rows": rows}


def _try_lock(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [RETENTION_LOCK])
    return bool(cursor.fetchone()[0])


def _remove_files() -> int:
    with connection.cursor() as cursor:
        cursor.execute(EXPIRED_FILES, _values(MAX_TRANSACTIONS))
        over = [file_id for (file_id,) in cursor.fetchall()]
    return sum(map(_remove, over))


def _remove(file_id: UUID) -> bool:
    with transaction.atomic():
        file = File.objects.select_for_update(skip_locked=True).filter(id=file_id).first()
        if file is None or file.batches.filter(state=BatchState.VALIDATING).exists():
            return False
        file.delete()
        return True

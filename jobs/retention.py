"""Retention: erases prompts and answers at the end of a site's retention period, deletes expired files and used nonces.

Usage events are kept. Safe to run in any number of workers: an advisory lock lets only one erase at a time.
"""

from dataclasses import dataclass
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from jobs.models import BatchState, File
from tenants.authentication import purge_nonces

log = structlog.get_logger(__name__)

#: Jobs erased in one transaction, so that locks and statements are short.
ROWS_PER_TRANSACTION = 500
#: Transactions in one round; the next round, a minute later, continues.
MAX_TRANSACTIONS = 40
#: A century: Postgres cannot subtract intervals of any length from a date.
MAX_DAYS = 36_500
#: Any number that no other advisory lock of this database uses.
RETENTION_LOCK = 0x4E49_4752

#: The retention period of each site; sites that keep prompts and answers forever are left out.
SITES = """
SELECT id, LEAST(COALESCE(retention_days, %(days)s), %(most_days)s)::int AS days FROM tenants_site
 WHERE COALESCE(retention_days, %(days)s) > 0
"""

# Sites come in random order, so that one with very many rows to erase does not always come first. Members of a batch
# are erased when their whole batch ended that long ago, because its results are read as a whole. A provider's error
# message may quote the prompt, so it is erased too; the error code is kept.
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

# Files that expired, and files without an expiry (outputs of batches) that are older than the site's retention period.
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
    """What one round erased."""

    jobs: int = 0
    files: int = 0


def run_retention() -> RetentionReport:
    """Run one round and log its result. Every worker calls it once a minute."""
    erased = purge_expired()
    _purge_nonces()
    if erased != RetentionReport():
        log.info("retention_erased", jobs=erased.jobs, files=erased.files)
    return erased


def purge_expired() -> RetentionReport:
    """Erase due prompts, answers and files: at most some thousands, and none while another worker does so."""
    return RetentionReport(jobs=_erase_jobs(), files=_remove_files())


def _erase_jobs() -> int:
    erased = 0
    for _ in range(MAX_TRANSACTIONS):
        count = _erase_chunk()
        erased += count
        if count < ROWS_PER_TRANSACTION:
            break
    return erased


def _erase_chunk() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        if not _try_lock(cursor):
            return 0
        cursor.execute(ERASE, _values(ROWS_PER_TRANSACTION))
        return int(cursor.rowcount)


def _purge_nonces() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        if _try_lock(cursor):
            purge_nonces()


def _values(rows: int) -> dict[str, int]:
    return {"days": settings.JOB_RETENTION_DAYS, "most_days": MAX_DAYS, "rows": rows}


def _try_lock(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [RETENTION_LOCK])
    return bool(cursor.fetchone()[0])


def _remove_files() -> int:
    with connection.cursor() as cursor:
        cursor.execute(EXPIRED_FILES, _values(MAX_TRANSACTIONS))
        expired = [file_id for (file_id,) in cursor.fetchall()]
    return sum(map(_remove, expired))


def _remove(file_id: UUID) -> bool:
    with transaction.atomic():
        file = File.objects.select_for_update(skip_locked=True).filter(id=file_id).first()
        if file is None or file.batches.filter(state=BatchState.VALIDATING).exists():
            return False
        file.delete()
        return True

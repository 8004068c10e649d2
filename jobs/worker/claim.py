"""Claims queued jobs for a worker: one statement decides which worker runs which job.

Order: by priority; within a priority fair between sites (the site with the fewest running jobs first, so that ten
thousand jobs of one site do not delay ten of another); within a site by age. Paused jobs are not claimed, nor jobs
beyond the caps on running jobs of sites and providers. Of jobs in quarantine (`jobs.worker.sweep`) a worker has one at
a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection

from core.ids import to_public
from jobs.models import ENCRYPTED_FIELDS, NO_BATCH, QUARANTINE_CRASHES, Job

#: The time after its deadline that an attempt has to write its outcome, before the sweep takes it from its worker.
GRACE_SECONDS = 30
#: An advisory lock that serializes claims: each counts what the one before it claimed, so caps are exact.
CLAIM_LOCK = 0x4E49_4749

#: How many candidates are read for each free slot, divided among the lanes.
CANDIDATES_PER_SLOT = 4

PLAIN_COLUMNS = [field.column for field in Job._meta.concrete_fields if field.name not in ENCRYPTED_FIELDS]

# Both statements are sent as one message and one transaction: a process that freezes in between cannot hold the lock.
# The second has its own snapshot, taken after the lock was acquired, and sees what the previous claim wrote.
#
# A lane is a set of jobs that can only be claimed from or skipped as a whole: same queue, priority, site, provider and
# batch. Lanes are few, and the index of queued jobs is in their order, so that finding them takes one step in the index
# for each (a loose index scan), however many jobs they have.
CLAIM = """
SELECT pg_advisory_xact_lock(%(lock)s);
WITH RECURSIVE live AS (
    SELECT 1 FROM jobs_workerlease
     WHERE worker_id = %(worker_id)s AND expires_at > clock_timestamp() AND NOT draining
       FOR SHARE
), lane AS (
    (SELECT queue, priority, site_id, provider, COALESCE(batch_id, %(no_batch)s) AS batch_id
       FROM jobs_job WHERE state = 'queued'
      ORDER BY queue, priority, site_id, provider, COALESCE(batch_id, %(no_batch)s) LIMIT 1)
    UNION ALL
    SELECT following.* FROM lane, LATERAL (
        SELECT queue, priority, site_id, provider, COALESCE(batch_id, %(no_batch)s)
          FROM jobs_job
         WHERE state = 'queued' AND (queue, priority, site_id, provider, COALESCE(batch_id, %(no_batch)s))
             > (lane.queue, lane.priority, lane.site_id, lane.provider, lane.batch_id)
         ORDER BY queue, priority, site_id, provider, COALESCE(batch_id, %(no_batch)s) LIMIT 1
    ) following
), running AS MATERIALIZED (
    SELECT site_id, provider, count(*) AS jobs FROM jobs_job WHERE state = 'running' GROUP BY site_id, provider
), site_room AS MATERIALIZED (
    SELECT site.id, COALESCE(sum(running.jobs), 0) AS running,
           COALESCE(site.max_running_jobs, 2147483647) - COALESCE(sum(running.jobs), 0) AS room
      FROM tenants_site site LEFT JOIN running ON running.site_id = site.id
     WHERE site.id IN (SELECT site_id FROM lane)
     GROUP BY site.id
), provider_room AS MATERIALIZED (
    SELECT provider.name, provider.max_running_jobs - COALESCE(sum(running.jobs), 0) AS room
      FROM inference_provideraccount provider LEFT JOIN running ON running.provider = provider.name
     WHERE provider.max_running_jobs IS NOT NULL
     GROUP BY provider.id
), open_lane AS MATERIALIZED (
    SELECT lane.*, site_room.running AS site_running, site_room.room AS site_room, provider_room.room AS provider_room
      FROM lane
      JOIN site_room ON site_room.id = lane.site_id
      LEFT JOIN provider_room ON provider_room.name = lane.provider
     WHERE (%(all_queues)s OR lane.queue = ANY(%(queues)s::text[]))
       AND site_room.room > 0 AND COALESCE(provider_room.room, 1) > 0
       AND EXISTS (SELECT 1 FROM live)
       AND NOT EXISTS (SELECT 1 FROM jobs_pause pause
                        WHERE pause.site_id = lane.site_id OR pause.queue = lane.queue
                           OR pause.batch_id = lane.batch_id)
), candidate AS (
    SELECT open_lane.*, job.id, job.available_at
      FROM open_lane, LATERAL (
        SELECT id, available_at FROM jobs_job
         WHERE state = 'queued' AND queue = open_lane.queue AND priority = open_lane.priority
           AND site_id = open_lane.site_id AND provider = open_lane.provider
           AND COALESCE(batch_id, %(no_batch)s) = open_lane.batch_id
           AND crash_count < %(quarantine)s AND available_at <= statement_timestamp()
           AND (expires_at IS NULL OR expires_at > statement_timestamp())
         ORDER BY available_at, id
         LIMIT (SELECT LEAST(%(limit)s, GREATEST(%(ahead)s, %(ahead)s * %(limit)s / GREATEST(count(*), 1)))
                  FROM open_lane)
      ) job
    UNION ALL
    (SELECT open_lane.*, job.id, job.available_at
       FROM jobs_job job
       JOIN open_lane ON open_lane.queue = job.queue AND open_lane.priority = job.priority
        AND open_lane.site_id = job.site_id AND open_lane.provider = job.provider
        AND open_lane.batch_id = COALESCE(job.batch_id, %(no_batch)s)
      WHERE job.state = 'queued' AND job.crash_count >= %(quarantine)s AND job.available_at <= statement_timestamp()
        AND (job.expires_at IS NULL OR job.expires_at > statement_timestamp())
        AND NOT EXISTS (SELECT 1 FROM jobs_job mine
                         WHERE mine.worker_id = %(worker_id)s AND mine.state = 'running'
                           AND mine.crash_count >= %(quarantine)s)
      ORDER BY job.priority, job.available_at LIMIT 1)
), ready AS (
    SELECT candidate.*,
           row_number() OVER site_line AS site_place,
           site_running + row_number() OVER site_line AS turn
      FROM candidate
    WINDOW site_line AS (PARTITION BY site_id ORDER BY priority, available_at, id)
), allowed AS (
    SELECT *, row_number() OVER (PARTITION BY provider ORDER BY priority, turn, available_at, id) AS provider_place
      FROM ready WHERE site_place <= site_room
), chosen AS (
    SELECT id, row_number() OVER (ORDER BY priority, turn, available_at, id) AS place
      FROM allowed WHERE provider_room IS NULL OR provider_place <= provider_room
     ORDER BY place LIMIT %(limit)s
), held AS (
    SELECT job.id, chosen.place FROM jobs_job job JOIN chosen ON chosen.id = job.id
     WHERE job.state = 'queued'
       FOR UPDATE OF job SKIP LOCKED
), claimed AS (
    UPDATE jobs_job job SET state = 'running', attempt = attempt + 1, worker_id = %(worker_id)s,
                            deadline_at = clock_timestamp() + %(deadline)s
      FROM held WHERE job.id = held.id
    RETURNING held.place, job.id, job.attempt, job.site_id, job.kind, job.model, job.provider, job.batch_id,
              job.request_id, job.error_count, job.max_attempts, job.payload_version
), history AS (
    INSERT INTO jobs_attempt (job_id, number, worker_id, started_at, outcome, error_code, error_message)
    SELECT id, attempt, %(worker_id)s, clock_timestamp(), '', '', '' FROM claimed
)
SELECT id, attempt, site_id, kind, model, provider, batch_id, request_id, error_count, max_attempts, payload_version
  FROM claimed ORDER BY place
"""

# Payloads are read after the claim is committed: they may have megabytes, and Postgres would hold the lock until the
# worker has received them, which a frozen worker never does.
PAYLOADS = "SELECT id, payload FROM jobs_job WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job claimed by this worker: all that its attempt needs. The payload is still encrypted."""

    job_id: UUID
    #: The number of this attempt.
    attempt: int
    site_id: UUID
    kind: str
    model: str
    provider: str
    batch_id: UUID | None
    request_id: str
    #: Attempts that ended in an error before this one.
    error_count: int
    max_attempts: int
    payload_version: int
    encrypted_payload: bytes | None = field(repr=False)

    @property
    def public_id(self) -> str:
        return to_public(Job.ID_PREFIX, self.job_id)


def claim(worker_id: UUID, limit: int, queues: Sequence[str] = ()) -> list[ClaimedJob]:
    """Claim up to `limit` ready jobs of these queues (all queues if there are none given) for this worker.

    Returns them in the order in which they should start. Empty if none is ready, or if the worker's lease has expired
    or is draining. Payloads are decrypted later, one by one.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, claim_parameters(worker_id, limit, queues))
        cursor.nextset()
        rows = cursor.fetchall()
        if not rows:
            return []
        cursor.execute(PAYLOADS, [[row[0] for row in rows]])
        payloads = dict(cursor.fetchall())
    return [ClaimedJob(*(*row, payloads.get(row[0]))) for row in rows]


def claim_parameters(worker_id: UUID, limit: int, queues: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of CLAIM."""
    return {
        "lock": CLAIM_LOCK,
        "no_batch": NO_BATCH,
        "ahead": CANDIDATES_PER_SLOT,
        "quarantine": QUARANTINE_CRASHES,
        "worker_id": worker_id,
        "limit": limit,
        "all_queues": not queues,
        "queues": list(queues),
        "deadline": timedelta(seconds=settings.JOB_ATTEMPT_TIMEOUT_SECONDS + GRACE_SECONDS),
    }

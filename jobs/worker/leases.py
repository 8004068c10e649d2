"""Leases of worker processes: one row each, renewed by the heartbeat every two seconds. All times are Postgres's.

An expired lease is never revived: a worker whose lease expired acquires a new one under a new id, and the sweep gives
its old jobs to other workers.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from core.crash import CrashPoint, crash_point
from core.ids import new_uuid
from jobs.models import Job, JobState, WorkerLease

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 6.0
EMPTY_REPORT: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that the worker holds according to the database."""

    job_id: UUID
    attempt: int
    is_cancel_requested: bool


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """The result of a heartbeat: the jobs that the worker holds."""

    held: tuple[HeldJob, ...]


def acquire_lease() -> UUID:
    """Register this process under a new worker id, and return the id."""
    worker_id = new_uuid()
    _execute(
        """
        INSERT INTO jobs_workerlease (worker_id, host, pid, version, started_at, expires_at, draining, report)
        VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp() + %s, false, '{}')
        """,
        [worker_id, socket.gethostname()[:255], os.getpid(), settings.VERSION, timedelta(seconds=LEASE_SECONDS)],
    )
    return worker_id


def renew_lease(worker_id: UUID, report: Mapping[str, Any] = EMPTY_REPORT) -> LeaseRenewal | None:
    """Extend the lease, and store the worker's report.

    None if it has expired: the worker must stop all its attempts and acquire a new lease.
    """
    renewed = _execute(
        """
        UPDATE jobs_workerlease SET expires_at = clock_timestamp() + %s, report = %s::jsonb
         WHERE worker_id = %s AND expires_at > clock_timestamp()
        """,
        [timedelta(seconds=LEASE_SECONDS), msgspec.json.encode(report).decode(), worker_id],
    )
    crash_point(CrashPoint.IN_HEARTBEAT)
    if not renewed:
        return None
    running = Job.objects.filter(state=JobState.RUNNING, worker_id=worker_id)
    rows = running.values_list("id", "attempt", "cancel_requested_at")
    return LeaseRenewal(tuple(HeldJob(job_id, attempt, cancel_at is not None) for job_id, attempt, cancel_at in rows))


def mark_draining(worker_id: UUID) -> None:
    """Mark the worker as draining: it claims no more jobs."""
    WorkerLease.objects.filter(worker_id=worker_id).update(draining=True)


def release_lease(worker_id: UUID) -> None:
    """Delete the lease; jobs that the worker still holds are requeued as lost by the next sweep."""
    WorkerLease.objects.filter(worker_id=worker_id).delete()


def live_workers() -> set[UUID]:
    """Return the workers whose lease has not expired."""
    return set(WorkerLease.objects.filter(expires_at__gt=Now()).values_list("worker_id", flat=True))


def delete_expired_leases() -> int:
    """Delete leases that expired a minute ago; the jobs of their workers have been swept by then."""
    return _execute("DELETE FROM jobs_workerlease WHERE expires_at < clock_timestamp() - interval '1 minute'", [])


def _execute(sql: str, values: list[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)

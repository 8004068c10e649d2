"""Polls Postgres for the states of the jobs that this process's readers follow: twice a second, in one query."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from redis.asyncio import Redis

from core.database_threads import DATABASE_UNAVAILABLE, DatabaseThreadPool
from core.redis import RedisUnavailable
from core.tasks import cancel_and_wait
from jobs.read import JobProgress, find_job, progress_by_id, progress_of
from jobs.watchers import watch_jobs
from live.runtime import LiveRuntime
from tenants.models import Site

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class WatchedJob:
    """A job with readers in this process."""

    job_id: UUID
    progress: JobProgress
    readers: int = 0


class JobStatePoller:
    """The poller of one process; it runs only while there are readers."""

    def __init__(self, client: Redis, threads: DatabaseThreadPool) -> None:
        self._redis = client
        self._threads = threads
        self._watched: dict[UUID, WatchedJob] = {}
        self._task: asyncio.Task[None] | None = None
        self._polled = asyncio.Event()

    @asynccontextmanager
    async def watch(self, site: Site, public_id: str) -> AsyncIterator[WatchedJob]:
        """Watch a job of the site; its worker then publishes its tokens. Raises `JobNotFound`."""
        job = await self._threads.run(find_job, site, public_id)
        watched = self._watched.setdefault(job.id, WatchedJob(job.id, progress_of(job)))
        watched.readers += 1
        try:
            await self._announce_watch([watched])
            if self._task is None:
                self._task = asyncio.create_task(self._poll_forever(), name="job-states")
            yield watched
        finally:
            watched.readers -= 1
            if not watched.readers:
                self._watched.pop(watched.job_id, None)

    async def wait_for_poll(self) -> None:
        """Wait until the next poll has finished."""
        await self._polled.wait()

    async def stop(self) -> None:
        """Stop polling, and return when no poll is in progress."""
        await cancel_and_wait(self._task)

    async def _poll_forever(self) -> None:
        try:
            while self._watched:
                await asyncio.sleep(POLL_SECONDS)
                await self._poll()
                polled, self._polled = self._polled, asyncio.Event()
                polled.set()
        finally:
            self._task = None

    async def _poll(self) -> None:
        open_jobs = [watched for watched in self._watched.values() if not watched.progress.is_terminal]
        await self._announce_watch(open_jobs)
        try:
            found = await self._threads.run(progress_by_id, [watched.job_id for watched in open_jobs])
        except DATABASE_UNAVAILABLE as error:
            log.warning("job_state_poll_failed", error=str(error).strip()[:200], jobs=len(open_jobs))
            return
        for watched in open_jobs:
            watched.progress = found.get(watched.job_id, watched.progress)

    async def _announce_watch(self, watched: list[WatchedJob]) -> None:
        try:
            await watch_jobs(self._redis, [job.job_id for job in watched if not job.progress.is_terminal])
        except RedisUnavailable as error:
            # No tokens arrive then; the answer still comes from Postgres.
            log.warning("job_watch_failed", error=str(error))


_pollers: WeakKeyDictionary[LiveRuntime, JobStatePoller] = WeakKeyDictionary()


def job_state_poller(runtime: LiveRuntime) -> JobStatePoller:
    """Return the poller of a runtime: one per event loop, stopped when the runtime closes."""
    poller = _pollers.get(runtime)
    if poller is None:
        poller = _pollers[runtime] = JobStatePoller(runtime.redis, runtime.threads)
        runtime.on_close(poller.stop)
    return poller

"""What Postgres says of the jobs that are followed here: asked twice a second, once for all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError
from redis.asyncio import Redis

from core.redis import RedisAway
from core.threads import DatabaseThreads
from jobs.audience import ask_to_watch
from jobs.read import Standing, find_job, standing_of, standings_of
from tenants.models import Site

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class Watched:
    """One job that is followed here."""

    job_id: UUID
    standing: Standing
    readers: int = 0


class JobStates:
    """Of one process."""

    def __init__(self, server: Redis, threads: DatabaseThreads) -> None:
        self._server = server
        self._threads = threads
        self._watched: dict[UUID, Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    @asynccontextmanager
    async def watch(self, site: Site, public_id: str) -> AsyncIterator[Watched]:
        """Follow a job of the site, and let its worker know. Raises `JobNotFound`."""
        job = await self._threads.run(find_job, site, public_id)
        watched = self._watched.setdefault(job.id, Watched(job.id, standing_of(job)))
        watched.readers += 1
        try:
            await self._ask([watched])
            if self._task is None:
                self._task = asyncio.create_task(self._look_forever(), name="job-states")
            yield watched
        finally:
            watched.readers -= 1
            if not watched.readers:
                self._watched.pop(watched.job_id, None)

    async def next_look(self) -> None:
        """Wait until Postgres has been asked again."""
        await self._looked.wait()

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _look_forever(self) -> None:
        try:
            while self._watched:
                await asyncio.sleep(LOOK_SECONDS)
                await self._look()
                looked, self._looked = self._looked, asyncio.Event()
                looked.set()
        finally:
            self._task = None

    async def _look(self) -> None:
        open_jobs = [watched for watched in self._watched.values() if not watched.standing.is_over]
        await self._ask(open_jobs)
        try:
            found = await self._threads.run(standings_of, [watched.job_id for watched in open_jobs])
        except (OperationalError, InterfaceError) as error:
            log.warning("job_states_unknown", error=str(error).strip()[:200], jobs=len(open_jobs))
            return
        for watched in open_jobs:
            watched.standing = found.get(watched.job_id, watched.standing)

    async def _ask(self, watched: list[Watched]) -> None:
        try:
            await ask_to_watch(self._server, [each.job_id for each in watched if not each.standing.is_over])
        except RedisAway as error:
            # Without it no tokens come, and the answer all the same.
            log.warning("job_not_watched", error=str(error))

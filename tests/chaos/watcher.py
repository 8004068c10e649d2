"""Polls the database during a campaign: which process is which worker, and how jobs finished."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.ledgers import Sighting

PAUSE_SECONDS = 0.25

WORKERS = "SELECT pid, worker_id FROM jobs_workerlease"
ENDED = "SELECT id, state, finished_at, coalesce(md5(result), '') FROM jobs_job WHERE finished_at IS NOT NULL"
COUNTS = """
SELECT (SELECT count(*) FROM jobs_job), (SELECT count(*) FROM jobs_job WHERE finished_at IS NOT NULL),
       (SELECT count(*) FROM webhooks_delivery WHERE state = 'pending')
"""


class Watcher:
    """A thread that polls, and resumes when the database is back."""

    def __init__(self, database_url: str) -> None:
        #: The worker ids that each process has had.
        self.workers: dict[int, set[UUID]] = defaultdict(set)
        #: Each job as it was when first seen finished.
        self.sightings: dict[UUID, Sighting] = {}
        #: Counts: jobs, finished jobs, pending deliveries.
        self.counts = (0, 0, 0)
        self._database_url = database_url
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(10)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with connect(self._database_url) as connection:
                    while not self._over.wait(PAUSE_SECONDS):
                        self._look(connection)
            except psycopg.Error:
                self._over.wait(PAUSE_SECONDS)

    def _look(self, connection: "psycopg.Connection[Any]") -> None:
        for pid, worker_id in connection.execute(WORKERS):
            self.workers[pid].add(worker_id)
        for sighting in read_ended(connection):
            self.sightings.setdefault(sighting.job_id, sighting)
        self.counts = tuple(connection.execute(COUNTS).fetchone() or (0, 0, 0))


def connect(database_url: str) -> "psycopg.Connection[Any]":
    return psycopg.connect(database_url, autocommit=True, connect_timeout=3)


def read_ended(connection: "psycopg.Connection[Any]") -> Sequence[Sighting]:
    """Return all finished jobs."""
    return [Sighting(*row) for row in connection.execute(ENDED)]

"""Queries to a desk's database, the source of truth for states and times."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from core.ids import new_uuid

#: The longest that a measure may take, unless it says otherwise.
PATIENCE_SECONDS = 150.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Books:
    connection: psycopg.Connection[tuple[Any, ...]]

    def ask(self, statement: str, *values: object) -> tuple[Any, ...]:
        """Return the first row."""
        return self.connection.execute(statement.encode(), values).fetchone() or ()

    def do(self, statement: str, *values: object) -> int:
        """Run an UPDATE or INSERT; return the number of rows."""
        return self.connection.execute(statement.encode(), values).rowcount

    def until(self, question: str, *values: object, patience_seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until the query returns true; return the time by Postgres's clock, in Unix seconds."""
        deadline = time.monotonic() + patience_seconds
        while True:
            holds, at = self.ask(f"SELECT ({question}), extract(epoch FROM clock_timestamp())", *values)  # noqa: S608
            if holds:
                return float(at)
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not within {patience_seconds:g} s: {question}")
            time.sleep(POLL_SECONDS)

    def until_all_ended(self) -> float:
        """Wait until no job is queued or running in committed rows; return when that was."""
        return self.until("NOT EXISTS (SELECT FROM jobs_job WHERE state IN ('queued', 'running'))")

    def first_lease_at(self) -> float:
        """Wait until a worker has its lease; return when it could first claim."""
        self.until("EXISTS (SELECT FROM jobs_workerlease)")
        return float(self.ask("SELECT extract(epoch FROM min(started_at)) FROM jobs_workerlease")[0])

    def check_all_paid(self, model: str, count: int) -> None:
        """Raise unless this many jobs succeeded, each with the usage event of its call."""
        (found,) = self.ask(
            "SELECT count(*) FROM jobs_job job JOIN metering_usageevent event ON event.job_id = job.id"
            " WHERE job.model = %s AND job.state = 'succeeded' AND event.billable AND event.outcome = 'ok'",
            model,
        )
        if found != count:
            raise RuntimeError(f"{found} of {count} jobs for {model} succeeded and have their account.")

    def add_route(self, model: str, upstream_model: str) -> None:
        """Route the model to the simulator; the upstream model's name may hold controls."""
        route_id = new_uuid()
        self.do("INSERT INTO inference_route (id, model, is_active) VALUES (%s, %s, true)", route_id, model)
        self.do(
            "INSERT INTO inference_routetarget (route_id, provider_id, upstream_model, position, weight)"
            " SELECT %s, id, %s, 1, 1 FROM inference_provideraccount WHERE name = 'sim-openai'",
            route_id,
            upstream_model,
        )

    def take_webhooks(self, taken: bool) -> None:
        """Let the site have its webhook endpoint, or none."""
        self.do("UPDATE webhooks_endpoint SET is_enabled = %s", taken)


@contextmanager
def opened(database_url: str) -> Iterator[Books]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Books(connection)

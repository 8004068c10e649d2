"""The worker's drainer: it moves records as they arrive, and survives outages of Redis and Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from django.conf import settings
from django.db import OperationalError, ProgrammingError, connection
from structlog.testing import capture_logs

from core.database_threads import run_with_connection
from core.redis_keys import USAGE_RECORDS_KEY
from devstack.embedded import run_server as serving
from devstack.valkey import prepare_valkey
from metering import buffer
from metering.drainer import UsageDrainer
from metering.models import UsageEvent
from tenants.models import Site
from tests.platform.metering.entries import push, usage_record
from tests.polling import wait_until
from tests.ports import own_port

T = TypeVar("T")

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def running(drainer: UsageDrainer) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(drainer.run())
    try:
        yield task
    finally:
        drainer.stop()
        await task


async def in_postgres(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(run_with_connection, work)


def rename_table(before: str, after: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")


def drainer_events(logs: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the drainer's log events with their levels. A server of another test may still run, and log others."""
    return [(entry["event"], entry["log_level"]) for entry in logs if entry["event"].startswith("usage_drainer_")]


async def test_the_drainer_moves_records_as_they_arrive_and_once_more_when_stopped(site: Site) -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        server.delete(USAGE_RECORDS_KEY)
        drainer = UsageDrainer(poll_seconds=0.01)
        async with running(drainer):
            push(server, usage_record(site, 1))
            await wait_until(lambda: drainer.drained == 1)
            push(server, usage_record(site, 2))

        assert drainer.drained == 2
        assert server.llen(USAGE_RECORDS_KEY) == 0


async def test_the_drainer_logs_an_outage_of_redis_once_and_continues_after_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.drainer.OUTAGE_RETRY_SECONDS", 0.02)
    valkey = prepare_valkey(tmp_path / "valkey", own_port(), durable=False)
    drainer = UsageDrainer(valkey.url)
    with capture_logs() as logs:
        async with running(drainer) as task:
            await wait_until(lambda: drainer_events(logs))
            with serving(valkey, tmp_path / "valkey.log"), redis.Redis.from_url(valkey.url) as server:
                push(server, usage_record(site))
                await wait_until(lambda: drainer.drained == 1)
                drainer.stop()
                await task

    assert drainer_events(logs) == [("usage_drainer_unavailable", "error"), ("usage_drainer_recovered", "info")]


async def test_an_outage_of_postgres_loses_no_record_and_makes_no_dead_letter(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.drainer.OUTAGE_RETRY_SECONDS", 0.02)
    drainer = UsageDrainer(poll_seconds=0.01)

    def fail(_: Any) -> None:
        raise OperationalError("the database is unavailable")

    with redis.Redis.from_url(settings.REDIS_URL) as server, capture_logs() as logs:
        server.delete(USAGE_RECORDS_KEY, buffer.DEAD_LETTER_KEY)
        push(server, usage_record(site))
        with monkeypatch.context() as outage:
            outage.setattr("metering.usage_records.write", fail)
            task = asyncio.create_task(drainer.run())
            await wait_until(lambda: drainer_events(logs))
            assert buffer.read_backlog(server) == buffer.UsageBacklog(1, 0)
        await wait_until(lambda: drainer.drained == 1)
        drainer.stop()
        await task

    assert [event for event, _ in drainer_events(logs)] == ["usage_drainer_unavailable", "usage_drainer_recovered"]
    assert await in_postgres(UsageEvent.objects.count) == 1


async def test_any_other_error_is_logged_each_time_with_its_traceback_and_loses_no_record(site: Site) -> None:
    drainer = UsageDrainer(poll_seconds=0.01)
    with redis.Redis.from_url(settings.REDIS_URL) as server, capture_logs() as logs:
        server.delete(USAGE_RECORDS_KEY, buffer.DEAD_LETTER_KEY)
        await in_postgres(partial(rename_table, "metering_usageevent", "metering_renamed"))
        try:
            push(server, usage_record(site))
            async with running(drainer):
                await wait_until(lambda: [type(entry.get("exc_info")) for entry in logs].count(ProgrammingError) > 1)
                assert buffer.read_backlog(server) == buffer.UsageBacklog(1, 0)
                await in_postgres(partial(rename_table, "metering_renamed", "metering_usageevent"))
                await wait_until(lambda: drainer.drained == 1)
        finally:
            if not drainer.drained:
                await in_postgres(partial(rename_table, "metering_renamed", "metering_usageevent"))

    assert drainer_events(logs) == []
    assert await in_postgres(UsageEvent.objects.count) == 1

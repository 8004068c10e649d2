"""Accounts of live calls reach Postgres: each one, once, whoever dies on the way."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
import redis
from django.conf import settings
from django.db import connection
from msgspec.structs import replace

from core import redis as core_redis
from core.advisory_locks import try_advisory_lock
from core.database_threads import run_with_connection
from core.redis import RedisUnavailable
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from metering import buffer, usage_records
from metering.buffer import (
    UsageBacklog,
    close_orphaned_calls,
    drain,
    encode_usage_record,
    read_backlog,
    read_backlog_async,
)
from metering.models import UsageEvent, UsageOutcome
from metering.usage_records import UsageRecord
from providers.tiers import Tier
from providers.types import Usage
from tenants.models import Site
from tests.platform.metering.entries import push, usage_record

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def server() -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(settings.REDIS_URL)
    _sweep(client)
    yield client
    _sweep(client)
    client.close()


def _sweep(client: "redis.Redis") -> None:
    for pattern in ("nd:usage*", "nd:open:*", "nd:process:*"):
        for key in client.scan_iter(pattern, 1000):
            client.delete(key)


def written() -> list[str]:
    return sorted(UsageEvent.objects.values_list("dedupe_key", flat=True))


def test_entries_become_usage_events_that_are_rated(server: "redis.Redis", site: Site) -> None:
    push(
        server,
        usage_record(site, 1),
        usage_record(site, 2, usage=Usage(), outcome=UsageOutcome.ERROR, error_kind="overloaded"),
    )

    assert drain(server) == 2
    assert read_backlog(server) == UsageBacklog(0, 0)
    assert UsageEvent.objects.get(dedupe_key="req_1:1").cost_pico_usd > 0
    assert list(UsageEvent.objects.order_by("dedupe_key").values_list("outcome", "input_tokens", "output_tokens")) == [
        ("ok", 100, 10),
        ("error", 0, 0),
    ]


def test_an_account_comes_out_of_the_buffer_as_it_went_in(site: Site) -> None:
    whole = usage_record(site, usage=Usage(1, 2, 3, 4, 5, 6), job_id=UUID(int=5), attempt=2, first_token_ms=3)

    assert buffer._decoder.decode(encode_usage_record(whole)) == whole


def test_an_account_of_the_version_before_has_the_standard_tier(server: "redis.Redis", site: Site) -> None:
    entry = msgspec.json.decode(encode_usage_record(usage_record(site)))
    del entry["tier"]
    server.rpush(USAGE_RECORDS_KEY, msgspec.json.encode(entry))

    assert drain(server) == 1
    assert UsageEvent.objects.get().tier == "standard"


def test_what_is_written_twice_is_there_once(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site), usage_record(site))
    drain(server)
    push(server, usage_record(site))
    drain(server)

    assert written() == ["req_1:1"]


async def test_what_waits_can_be_told_on_an_event_loop(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1), usage_record(site, 2))
    server.lpush(buffer.DEAD_LETTER_KEY, b"x")
    try:
        assert await read_backlog_async(core_redis.client(settings.REDIS_URL)) == UsageBacklog(2, 1)
    finally:
        await core_redis.close_clients()


def test_more_than_a_batch_is_moved_in_batches(
    server: "redis.Redis", site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "MAX_BATCH_ENTRIES", 3)
    push(server, *(usage_record(site, number) for number in range(10)))

    assert drain(server) == 10
    assert len(written()) == 10


# Who dies


def test_killed_between_commit_and_removal_nothing_is_written_twice_or_lost(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1), usage_record(site, 2))

    killed = subprocess.run([sys.executable, "-c", _DRAIN_AND_DIE.format(**_addresses())], cwd=ROOT, timeout=60)

    assert killed.returncode == -9
    assert (written(), read_backlog(server).pending) == (["req_1:1", "req_2:1"], 2)
    push(server, usage_record(site, 3))
    assert drain(server) == 3
    assert written() == ["req_1:1", "req_2:1", "req_3:1"]


_DRAIN_AND_DIE = """
import sys; sys.path[:0] = ["."]; sys.path.append("platform")
import django
from nightdesk import env
env.set_variables({{"DATABASE_URL": {database!r}, "REDIS_URL": {redis!r}, "DJANGO_SETTINGS_MODULE": "nightdesk.settings"}})
django.setup()
import redis
from core.crash import CrashAt, CrashPoint, arm
from metering.buffer import drain
arm(CrashAt(CrashPoint.AFTER_COMMIT, 1))
drain(redis.Redis.from_url({redis!r}))
"""


def _addresses() -> dict[str, str]:
    database = connection.settings_dict
    place = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
    address = f"postgres://{database['USER']}:{database['PASSWORD']}@{place}"
    return {"database": address, "redis": settings.REDIS_URL}


def test_who_comes_second_removes_nothing_that_nobody_has_written(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1))
    entries = buffer._read_first(server, 1)
    push(server, usage_record(site, 2))
    server.lpop(USAGE_RECORDS_KEY)  # who read the same was quicker

    assert buffer._remove_written(server, entries, []) == 0
    assert drain(server) == 1
    assert written() == ["req_2:1"]


def test_two_drain_at_once_and_every_entry_is_moved_once(
    server: "redis.Redis", site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "MAX_BATCH_ENTRIES", 5)
    push(server, *(usage_record(site, number) for number in range(200)))

    with ThreadPoolExecutor(2) as threads:
        moved = [
            each.result() for each in [threads.submit(run_with_connection, lambda: drain(server)) for _ in range(2)]
        ]

    assert sum(moved) + drain(server) == 200
    assert len(written()) == 200


def test_while_another_process_drains_nothing_is_done(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site))

    def elsewhere() -> int:
        return drain(server)

    with try_advisory_lock(buffer.DRAIN_LOCK) as acquired, ThreadPoolExecutor(1) as threads:
        assert acquired
        assert threads.submit(run_with_connection, elsewhere).result() == 0
    assert written() == []
    assert drain(server) == 1


def test_a_flushed_redis_breaks_nothing(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1))
    entries = buffer._read_first(server, 1)
    server.delete(USAGE_RECORDS_KEY)

    assert buffer._remove_written(server, entries, []) == 0
    assert (drain(server), close_orphaned_calls(server)) == (0, 0)
    push(server, usage_record(site, 2))
    assert drain(server) == 1


def test_a_redis_that_is_away_is_said(site: Site) -> None:
    with pytest.raises(RedisUnavailable):
        drain(redis.Redis.from_url("redis://127.0.0.1:1/0"))


# What cannot be written


def test_a_poison_entry_is_set_aside_and_holds_up_nobody(server: "redis.Redis", site: Site) -> None:
    garbage = b'{"not": "an account"'
    push(server, usage_record(site, 1))
    server.rpush(USAGE_RECORDS_KEY, garbage)
    push(
        server,
        usage_record(site, 2),
        usage_record(UUID(int=9), 3),
        usage_record(site, 4, model="m" * 300),
        usage_record(site, 5),
    )

    assert drain(server) == 6
    assert written() == ["req_1:1", "req_2:1", "req_5:1"]
    assert read_backlog(server) == UsageBacklog(0, 3)
    assert garbage in server.lrange(buffer.DEAD_LETTER_KEY, 0, -1)
    assert server.ttl(buffer.DEAD_LETTER_KEY) > 0


# Killed processes


def open_account(server: "redis.Redis", process: str, opened: UsageRecord) -> None:
    entry = encode_usage_record(replace(opened, outcome=UsageOutcome.OPEN, usage=Usage(40), billable=False))
    server.hset(open_calls_key(process), opened.request_id, entry)


def test_a_killed_process_s_accounts_are_closed_as_lost_once(server: "redis.Redis", site: Site) -> None:
    open_account(server, "process_dead", usage_record(site, 1))
    open_account(server, "process_alive", usage_record(site, 2))
    server.set("nd:process:process_alive", b"1")

    assert (close_orphaned_calls(server), close_orphaned_calls(server)) == (1, 0)
    event = UsageEvent.objects.get()
    assert (event.dedupe_key, event.outcome, event.estimated, event.input_tokens) == ("req_1:1", "lost", True, 40)
    assert event.cost_pico_usd > 0
    assert not event.billable
    assert server.hkeys("nd:open:process_alive") == [b"req_2"]


def test_what_was_lost_is_rated_in_the_tier_that_was_asked_for(server: "redis.Redis", site: Site) -> None:
    for number, tier in enumerate((Tier.STANDARD, Tier.FLEX), 1):
        open_account(server, "process_dead", usage_record(site, number, upstream_model="gpt-6-luna", tier=tier))

    close_orphaned_calls(server)

    rated = UsageEvent.objects.order_by("dedupe_key").values_list("tier", "cost_pico_usd")
    assert list(rated) == [("standard", 40 * 100_000), ("flex", 40 * 50_000)]


def test_a_process_that_was_only_slow_corrects_what_was_taken_for_lost(server: "redis.Redis", site: Site) -> None:
    open_account(server, "process_slow", usage_record(site))
    close_orphaned_calls(server)
    push(server, usage_record(site))
    drain(server)

    assert UsageEvent.objects.values_list("outcome", "output_tokens", "billable").get() == ("ok", 10, True)


def test_what_is_closed_is_not_taken_for_lost(server: "redis.Redis", site: Site) -> None:
    usage_records.write([usage_record(site)])
    open_account(server, "process_dead", usage_record(site))

    close_orphaned_calls(server)

    assert UsageEvent.objects.get().outcome == UsageOutcome.OK
    assert server.keys("nd:open:*") == []


def test_an_open_account_that_cannot_be_written_is_set_aside(server: "redis.Redis", site: Site) -> None:
    open_account(server, "process_dead", usage_record(UUID(int=9), 1))
    open_account(server, "process_dead", usage_record(site, 2))

    assert close_orphaned_calls(server) == 2
    assert written() == ["req_2:1"]
    assert read_backlog(server).dead_letters == 1

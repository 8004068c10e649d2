"""Every usage record of a live call reaches Postgres once, whichever process is killed on the way."""

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


def test_entries_become_usage_events_with_a_cost(server: "redis.Redis", site: Site) -> None:
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


def test_a_buffer_entry_decodes_to_the_record_that_was_encoded(site: Site) -> None:
    record = usage_record(site, usage=Usage(1, 2, 3, 4, 5, 6), job_id=UUID(int=5), attempt=2, first_token_ms=3)

    assert buffer._decoder.decode(encode_usage_record(record)) == record


def test_a_record_of_the_previous_version_has_the_standard_tier(server: "redis.Redis", site: Site) -> None:
    entry = msgspec.json.decode(encode_usage_record(usage_record(site)))
    del entry["tier"]
    server.rpush(USAGE_RECORDS_KEY, msgspec.json.encode(entry))

    assert drain(server) == 1
    assert UsageEvent.objects.get().tier == "standard"


def test_a_record_that_is_drained_twice_is_one_usage_event(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site), usage_record(site))
    drain(server)
    push(server, usage_record(site))
    drain(server)

    assert written() == ["req_1:1"]


async def test_the_backlog_can_be_read_on_an_event_loop(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1), usage_record(site, 2))
    server.lpush(buffer.DEAD_LETTER_KEY, b"x")
    try:
        assert await read_backlog_async(core_redis.client(settings.REDIS_URL)) == UsageBacklog(2, 1)
    finally:
        await core_redis.close_clients()


def test_a_buffer_larger_than_a_batch_is_drained_completely(
    server: "redis.Redis", site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "MAX_BATCH_ENTRIES", 3)
    push(server, *(usage_record(site, number) for number in range(10)))

    assert drain(server) == 10
    assert len(written()) == 10


# Killed and concurrent drainers


def test_a_drainer_killed_between_commit_and_removal_loses_and_duplicates_no_record(
    server: "redis.Redis", site: Site
) -> None:
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
env.set_variables({{"DATABASE_URL": {database!r}, "REDIS_URL": {redis!r}}})
env.set_variables({{"DJANGO_SETTINGS_MODULE": "nightdesk.settings"}})
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


def test_a_slower_drainer_removes_no_entry_that_is_not_written(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1))
    entries = buffer._read_first(server, 1)
    push(server, usage_record(site, 2))
    server.lpop(USAGE_RECORDS_KEY)  # another drainer that read the same entry was faster

    assert buffer._remove_written(server, entries, []) == 0
    assert drain(server) == 1
    assert written() == ["req_2:1"]


def test_two_concurrent_drainers_move_every_entry_once(
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


def test_a_drainer_does_nothing_while_another_process_drains(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site))

    def drain_in_thread() -> int:
        return drain(server)

    with try_advisory_lock(buffer.DRAIN_LOCK) as acquired, ThreadPoolExecutor(1) as threads:
        assert acquired
        assert threads.submit(run_with_connection, drain_in_thread).result() == 0
    assert written() == []
    assert drain(server) == 1


def test_a_drainer_survives_a_flush_of_redis(server: "redis.Redis", site: Site) -> None:
    push(server, usage_record(site, 1))
    entries = buffer._read_first(server, 1)
    server.delete(USAGE_RECORDS_KEY)

    assert buffer._remove_written(server, entries, []) == 0
    assert (drain(server), close_orphaned_calls(server)) == (0, 0)
    push(server, usage_record(site, 2))
    assert drain(server) == 1


def test_draining_an_unavailable_redis_raises_redis_unavailable(site: Site) -> None:
    with pytest.raises(RedisUnavailable):
        drain(redis.Redis.from_url("redis://127.0.0.1:1/0"))


# Dead letters


def test_an_entry_that_cannot_be_written_becomes_a_dead_letter_and_delays_no_other(
    server: "redis.Redis", site: Site
) -> None:
    garbage = b'{"not": "a usage record"'
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


def open_call(server: "redis.Redis", process: str, opened: UsageRecord) -> None:
    entry = encode_usage_record(replace(opened, outcome=UsageOutcome.OPEN, usage=Usage(40), billable=False))
    server.hset(open_calls_key(process), opened.request_id, entry)


def test_open_calls_of_a_killed_process_are_closed_as_lost_once(server: "redis.Redis", site: Site) -> None:
    open_call(server, "process_dead", usage_record(site, 1))
    open_call(server, "process_alive", usage_record(site, 2))
    server.set("nd:process:process_alive", b"1")

    assert (close_orphaned_calls(server), close_orphaned_calls(server)) == (1, 0)
    event = UsageEvent.objects.get()
    assert (event.dedupe_key, event.outcome, event.estimated, event.input_tokens) == ("req_1:1", "lost", True, 40)
    assert event.cost_pico_usd > 0
    assert not event.billable
    assert server.hkeys("nd:open:process_alive") == [b"req_2"]


def test_a_lost_call_is_priced_in_the_requested_tier(server: "redis.Redis", site: Site) -> None:
    for number, tier in enumerate((Tier.STANDARD, Tier.FLEX), 1):
        open_call(server, "process_dead", usage_record(site, number, upstream_model="gpt-6-luna", tier=tier))

    close_orphaned_calls(server)

    costs = UsageEvent.objects.order_by("dedupe_key").values_list("tier", "cost_pico_usd")
    assert list(costs) == [("standard", 40 * 100_000), ("flex", 40 * 50_000)]


def test_a_process_that_was_only_slow_corrects_a_call_taken_for_lost(server: "redis.Redis", site: Site) -> None:
    open_call(server, "process_slow", usage_record(site))
    close_orphaned_calls(server)
    push(server, usage_record(site))
    drain(server)

    assert UsageEvent.objects.values_list("outcome", "output_tokens", "billable").get() == ("ok", 10, True)


def test_a_closed_call_is_not_marked_as_lost(server: "redis.Redis", site: Site) -> None:
    usage_records.write([usage_record(site)])
    open_call(server, "process_dead", usage_record(site))

    close_orphaned_calls(server)

    assert UsageEvent.objects.get().outcome == UsageOutcome.OK
    assert server.keys("nd:open:*") == []


def test_an_open_call_that_cannot_be_written_becomes_a_dead_letter(server: "redis.Redis", site: Site) -> None:
    open_call(server, "process_dead", usage_record(UUID(int=9), 1))
    open_call(server, "process_dead", usage_record(site, 2))

    assert close_orphaned_calls(server) == 2
    assert written() == ["req_2:1"]
    assert read_backlog(server).dead_letters == 1

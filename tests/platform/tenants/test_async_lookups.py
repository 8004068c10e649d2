"""What is remembered, and asked for in threads, on an event loop that never waits for Postgres."""

import asyncio
import gc

import pytest
from django.db import OperationalError

from tenants import cached_lookups
from tenants.async_lookups import get_or_load, with_cached_lookups
from tenants.cached_lookups import CachedLookups, TTLCache
from tenants.errors import InvalidCredentials
from tests.platform.tenants.counted import Counted
from tests.polling import wait_until


class Source:
    """What is asked in threads: it counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.cache = TTLCache(self.load)

    def load(self, key: str) -> str:
        self.asked += 1
        return key.upper()

    def decide(self, remembered: CachedLookups) -> str:
        return remembered.peek(self.cache, "a")


async def test_what_is_remembered_is_not_asked_for(threads: Counted) -> None:
    source = Source()

    assert await with_cached_lookups(source.decide, threads) == "A"
    threads.is_away = True
    assert await with_cached_lookups(source.decide, threads) == "A"
    assert source.asked == 1


async def test_of_many_at_once_one_asks_for_all_and_who_goes_away_leaves_it_to_the_others(threads: Counted) -> None:
    source = Source()
    threads.open.clear()
    waiting = [asyncio.create_task(with_cached_lookups(source.decide, threads)) for _ in range(50)]
    await wait_until(lambda: threads.asked)
    waiting[0].cancel()
    await asyncio.sleep(0)
    threads.open.set()

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["A"] * 49
    assert (threads.asked, source.asked) == (["load"], 1)


async def test_what_grows_old_is_asked_anew_before_anybody_must_wait(
    threads: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    await with_cached_lookups(source.decide, threads)
    monkeypatch.setattr(cached_lookups, "REFRESH_AFTER_SECONDS", -1)
    threads.open.clear()

    assert [await with_cached_lookups(source.decide, threads) for _ in range(3)] == ["A"] * 3
    await wait_until(lambda: len(threads.asked) == 2)
    threads.open.set()

    await wait_until(lambda: source.asked == 2)


async def test_what_nobody_waits_for_may_fail_unseen(
    threads: Counted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    await with_cached_lookups(source.decide, threads)
    monkeypatch.setattr(cached_lookups, "REFRESH_AFTER_SECONDS", -1)
    threads.is_away = True

    await with_cached_lookups(source.decide, threads)
    await wait_until(lambda: len(threads.asked) == 2)
    await asyncio.sleep(0)
    gc.collect()

    assert await with_cached_lookups(source.decide, threads) == "A"
    assert "never retrieved" not in caplog.text


async def test_without_postgres_what_is_not_remembered_fails_and_is_asked_again(threads: Counted) -> None:
    source = Source()
    threads.is_away = True
    for _ in range(2):
        with pytest.raises(OperationalError):
            await with_cached_lookups(source.decide, threads)

    threads.is_away = False
    assert await with_cached_lookups(source.decide, threads) == "A"


async def test_what_is_forgotten_at_once_does_not_go_round_for_ever(threads: Counted) -> None:
    cache = TTLCache(str.upper, seconds=0)

    with pytest.raises(InvalidCredentials):
        await with_cached_lookups(lambda lookups: lookups.peek(cache, "a"), threads)


async def test_one_thing_is_looked_up_alike(threads: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    assert await get_or_load(source.cache, "a", threads) == "A"
    threads.is_away = True
    assert await get_or_load(source.cache, "a", threads) == "A"
    assert threads.asked == ["load"]

    threads.is_away = False
    monkeypatch.setattr(cached_lookups, "REFRESH_AFTER_SECONDS", -1)
    assert await get_or_load(source.cache, "a", threads) == "A"

    await wait_until(lambda: source.asked == 2)

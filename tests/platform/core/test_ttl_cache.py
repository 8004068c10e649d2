"""TTL cache: bounded age and size, single flight, and a refresh before the entry expires."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.db import OperationalError

from core.ttl_cache import REFRESH_AFTER_SECONDS, TTL_SECONDS, CacheEntryKey, CacheMiss, CacheReader, TTLCache
from tests.counting_threads import CountingThreads
from tests.polling import wait_until


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


class Loads:
    """A source that records what it loaded."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, key: str) -> str | None:
        self.keys.append(key)
        return None if key == "nobody" else key.upper()


@pytest.fixture
def threads() -> Iterator[CountingThreads]:
    made = CountingThreads()
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loads() -> Loads:
    return Loads()


def test_the_default_time_to_live_keeps_the_promise_of_one_second() -> None:
    assert REFRESH_AFTER_SECONDS < TTL_SECONDS < 1


@pytest.mark.parametrize(
    ("age", "is_hit"),
    [
        (0, True),
        (0.89, True),
        (0.9, False),
        (5, False),
    ],
)
def test_an_entry_is_a_hit_until_its_age_reaches_the_time_to_live(
    clock: Clock, loads: Loads, age: float, is_hit: bool
) -> None:
    clock.seconds = 0
    cache = TTLCache(loads, clock=clock)
    cache.get("a")
    clock.seconds = age

    assert cache.get("a") == "A"
    assert loads.keys == ["a"] * (1 if is_hit else 2)


def test_none_is_cached_like_any_value(clock: Clock, loads: Loads) -> None:
    cache = TTLCache(loads, clock=clock)

    assert cache.get("nobody") is cache.get("nobody") is None
    assert loads.keys == ["nobody"]


def test_an_error_is_not_cached() -> None:
    answers: list[Exception | str] = [OSError("down"), "up"]

    def load(_: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = TTLCache(load)
    with pytest.raises(OSError, match="down"):
        cache.get("a")

    assert cache.get("a") == "up"


def test_the_age_counts_from_before_the_query(clock: Clock) -> None:
    def slow(key: str) -> float:
        clock.seconds += 0.8
        return clock.seconds

    cache = TTLCache(slow, clock=clock)
    first = cache.get("a")
    clock.seconds += 0.2

    assert cache.get("a") != first


def test_the_oldest_entry_is_evicted_from_a_full_cache(clock: Clock, loads: Loads) -> None:
    cache = TTLCache(loads, max_entries=3, clock=clock)

    for key in "abcda":
        cache.get(key)

    assert len(cache) == 3
    assert loads.keys == ["a", "b", "c", "d", "a"]


def test_a_cleared_cache_loads_again(clock: Clock, loads: Loads) -> None:
    cache = TTLCache(loads, clock=clock)
    cache.get("a")
    cache.clear()
    cache.get("a")

    assert loads.keys == ["a", "a"]


def test_threads_may_read_and_clear_concurrently() -> None:
    cache: TTLCache[str, str] = TTLCache(str.upper, ttl_seconds=0, max_entries=5)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for number in range(2000):
                assert cache.get(f"k{number % 20}") == f"K{number % 20}"
                if number % 50 == 0:
                    cache.clear()
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert not errors


def test_peek_never_loads(clock: Clock, loads: Loads) -> None:
    cache = TTLCache(loads, clock=clock)
    with pytest.raises(CacheMiss) as caught:
        cache.peek("a")
    assert (caught.value.entry, loads.keys) == (CacheEntryKey(cache, "a"), [])

    cache.load("a")
    clock.seconds += 0.25
    assert cache.peek("a") == ("A", 0.25)
    clock.seconds += 1
    with pytest.raises(CacheMiss):
        cache.peek("a")


# On an event loop


async def test_a_hit_starts_no_load(threads: CountingThreads, loads: Loads) -> None:
    cache = TTLCache(loads)

    assert await cache.get_async("a", threads) == "A"
    threads.is_unavailable = True
    assert await cache.get_async("a", threads) == "A"
    assert threads.calls == ["load"]


async def test_concurrent_misses_share_one_load_and_one_reader_may_be_canceled(
    threads: CountingThreads, loads: Loads
) -> None:
    cache = TTLCache(loads)
    threads.open.clear()
    readers = [asyncio.create_task(cache.get_async("a", threads)) for _ in range(50)]
    await wait_until(lambda: threads.calls)
    readers[0].cancel()
    await asyncio.sleep(0)
    threads.open.set()

    values = await asyncio.gather(*readers, return_exceptions=True)

    assert isinstance(values[0], asyncio.CancelledError)
    assert values[1:] == ["A"] * 49
    assert (threads.calls, loads.keys) == (["load"], ["a"])


async def test_an_entry_in_use_is_refreshed_once_before_it_expires(
    threads: CountingThreads, clock: Clock, loads: Loads
) -> None:
    cache = TTLCache(loads, clock=clock)
    await cache.get_async("a", threads)
    clock.seconds += REFRESH_AFTER_SECONDS + 0.01
    threads.open.clear()

    assert [await cache.get_async("a", threads) for _ in range(3)] == ["A"] * 3
    await wait_until(lambda: len(threads.calls) == 2)
    threads.open.set()

    await wait_until(lambda: cache.peek("a")[1] == 0)
    assert loads.keys == ["a", "a"]


async def test_a_failed_refresh_leaves_the_entry_and_is_not_reported_by_asyncio(
    threads: CountingThreads, clock: Clock, loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    cache = TTLCache(loads, clock=clock)
    await cache.get_async("a", threads)
    clock.seconds += REFRESH_AFTER_SECONDS + 0.01
    threads.is_unavailable = True

    await cache.get_async("a", threads)
    await wait_until(lambda: len(threads.calls) == 2)
    await asyncio.sleep(0)
    gc.collect()

    assert await cache.get_async("a", threads) == "A"
    assert "never retrieved" not in caplog.text


async def test_a_failed_load_is_repeated_by_the_next_read(threads: CountingThreads, loads: Loads) -> None:
    cache = TTLCache(loads)
    threads.is_unavailable = True
    for _ in range(2):
        with pytest.raises(OperationalError):
            await cache.get_async("a", threads)

    threads.is_unavailable = False
    assert await cache.get_async("a", threads) == "A"


async def test_a_reader_of_several_caches_refreshes_what_is_due(
    threads: CountingThreads, clock: Clock, loads: Loads
) -> None:
    cache, reader = TTLCache(loads, clock=clock), CacheReader()
    with pytest.raises(CacheMiss) as caught:
        reader.peek(cache, "a")
    assert await caught.value.entry.refresh(threads) == "A"

    assert reader.peek(cache, "a") == "A"
    reader.refresh_due(threads)
    assert threads.calls == ["load"]
    clock.seconds += REFRESH_AFTER_SECONDS + 0.01
    assert reader.peek(cache, "a") == "A"
    reader.refresh_due(threads)
    await wait_until(lambda: loads.keys == ["a", "a"])

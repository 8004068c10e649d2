"""What the directory and its like remember, on an event loop, which never waits for Postgres itself.

What is remembered is enough for nearly every request. The rest is asked for in threads, once for all who wait for the
same. What is asked for often is asked for anew before it is too old to count, so that nobody waits at all.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from core.database_threads import DatabaseThreadPool
from tenants import cached_lookups
from tenants.cached_lookups import CachedLookups, CacheMiss, TTLCache
from tenants.errors import InvalidCredentials

#: More than the lookups of any proof. What is loaded is forgotten at once only where far too many ask.
MAX_LOOKUPS = 4

T = TypeVar("T")
V = TypeVar("V")
CacheKey: TypeAlias = tuple[TTLCache[Any], str]

#: What is being asked for at this moment, by the threads that do it.
_loads_in_flight: WeakKeyDictionary[DatabaseThreadPool, dict[CacheKey, "asyncio.Task[Any]"]] = WeakKeyDictionary()


async def with_cached_lookups(decide: Callable[[CachedLookups], T], threads: DatabaseThreadPool) -> T:
    """Return what is decided by what is remembered, once enough is. `decide` may be called more than once."""
    for _ in range(MAX_LOOKUPS):
        remembered = CachedLookups()
        try:
            decided = decide(remembered)
        except CacheMiss as missing:
            # Shielded: others wait for it too, and this request may be canceled.
            await asyncio.shield(_load_single_flight(missing, threads))
        else:
            for each in remembered.due_for_refresh:
                _load_single_flight(each, threads)
            return decided
    raise InvalidCredentials


async def get_or_load(cache: TTLCache[V], key: str, threads: DatabaseThreadPool) -> V:
    """Return what is remembered under a key, and wait for Postgres only where nothing is."""
    try:
        value, age = cache.peek(key)
    except CacheMiss as missing:
        loaded: V = await asyncio.shield(_load_single_flight(missing, threads))
        return loaded
    if age > cached_lookups.REFRESH_AFTER_SECONDS:
        _load_single_flight(CacheMiss(cache, key), threads)
    return value


def _load_single_flight(missing: CacheMiss, threads: DatabaseThreadPool) -> "asyncio.Task[Any]":
    """Ask for it in a thread, unless that is being done."""
    tasks = _loads_in_flight.setdefault(threads, {})
    key = (missing.cache, missing.key)
    if key not in tasks:
        tasks[key] = asyncio.create_task(threads.run(missing.cache.load, missing.key))
        tasks[key].add_done_callback(lambda task: _on_loaded(tasks, key, task))
    return tasks[key]


def _on_loaded(tasks: dict[CacheKey, "asyncio.Task[Any]"], key: CacheKey, task: "asyncio.Task[Any]") -> None:
    del tasks[key]
    if not task.cancelled():
        # Looked at, so that asyncio does not complain: where nobody waits, the next one asks again.
        task.exception()

"""TTL cache with refresh ahead, for rows that are read far more often than they change.

It guarantees that no value is older than its time to live, counted from before its query was sent; that its size is
bounded; and that on an event loop a cache miss costs one query however many requests wait for it (single flight). An
entry that is read when it is older than `refresh_after_seconds` is loaded again in the background, so a key in
constant use never misses: there is no thundering herd when an entry expires. `None` is cached like any other value; an
error never is.

Other processes are not notified of a change: they see it once their own entry expires. Hence the default time to
live: a change takes effect everywhere within a second.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from core.database_threads import DatabaseThreadPool

#: A change must take effect within one second; the remainder is for the request in progress.
TTL_SECONDS = 0.9
REFRESH_AFTER_SECONDS = 0.4
MAX_ENTRIES = 4096

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheEntryKey:
    """A key, and the cache that it belongs to."""

    cache: "TTLCache[Any, Any]"
    key: Hashable

    def refresh(self, threads: DatabaseThreadPool) -> "asyncio.Task[Any]":
        """Load the key in the background, as `TTLCache.refresh` does."""
        return self.cache.refresh(self.key, threads)


class CacheMiss(Exception):
    """An entry is not cached, or too old."""

    def __init__(self, entry: CacheEntryKey) -> None:
        super().__init__(entry.key)
        self.entry = entry


class TTLCache(Generic[K, V]):
    """Caches what `load` returns for a key. Any thread may read it, and any event loop."""

    def __init__(
        self,
        load: Callable[[K], V],
        *,
        ttl_seconds: float = TTL_SECONDS,
        refresh_after_seconds: float = REFRESH_AFTER_SECONDS,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ttl_seconds = ttl_seconds
        self.refresh_after_seconds = refresh_after_seconds
        self._load = load
        self._max_entries = max_entries
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}
        self._lock = threading.Lock()
        #: The loads in flight on each event loop, by the thread pool that runs them.
        self._loads: WeakKeyDictionary[DatabaseThreadPool, dict[K, asyncio.Task[V]]] = WeakKeyDictionary()

    def get(self, key: K) -> V:
        """Return the cached value, or load it now. For code that may block."""
        try:
            return self.peek(key)[0]
        except CacheMiss:
            return self.load(key)

    async def get_async(self, key: K, threads: DatabaseThreadPool) -> V:
        """Return the cached value; on a cache miss, wait for the one load of this key in the thread pool."""
        try:
            value, age = self.peek(key)
        except CacheMiss:
            # Shielded: other tasks wait for the same load, and this one may be canceled.
            return await asyncio.shield(self.refresh(key, threads))
        if age > self.refresh_after_seconds:
            self.refresh(key, threads)
        return value

    def peek(self, key: K) -> tuple[V, float]:
        """Return the cached value and its age in seconds, without ever loading. Raises `CacheMiss`."""
        # Without the lock: looking one key up is atomic, and an entry is replaced, never changed.
        entry = self._entries.get(key)
        if entry is not None:
            age = self._clock() - entry[0]
            if age < self.ttl_seconds:
                return entry[1], age
        raise CacheMiss(CacheEntryKey(self, key))

    def load(self, key: K) -> V:
        """Load the value now, whatever is cached, and cache it."""
        queried_at = self._clock()
        # Not under the lock: a slow query blocks no other key. Two threads may load the same key; both are right.
        value = self._load(key)
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = (queried_at, value)
            # The first in the dictionary is the oldest, and all have the same time to live.
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]
        return value

    def refresh(self, key: K, threads: DatabaseThreadPool) -> "asyncio.Task[V]":
        """Load the value in the thread pool, unless that is in flight, and return the task that does it."""
        loads = self._loads.setdefault(threads, {})
        if key not in loads:
            loads[key] = asyncio.create_task(threads.run(self.load, key), name="cache-refresh")
            loads[key].add_done_callback(lambda task: _on_loaded(loads, key, task))
        return loads[key]

    def clear(self) -> None:
        """Drop every entry. A load that is in flight still stores its value, which is as young as its query."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class CacheReader:
    """Reads several caches without ever waiting, and collects the entries that are due for a refresh."""

    def __init__(self) -> None:
        self._due: list[CacheEntryKey] = []

    def peek(self, cache: TTLCache[K, V], key: K) -> V:
        """Return the cached value. Raises `CacheMiss`."""
        value, age = cache.peek(key)
        if age > cache.refresh_after_seconds:
            self._due.append(CacheEntryKey(cache, key))
        return value

    def refresh_due(self, threads: DatabaseThreadPool) -> None:
        """Load the collected entries in the background. Nothing waits for them, and their errors are dropped."""
        for entry in self._due:
            entry.refresh(threads)


def _on_loaded(loads: dict[K, "asyncio.Task[V]"], key: K, task: "asyncio.Task[V]") -> None:
    del loads[key]
    if not task.cancelled():
        # Retrieved, so that asyncio does not warn: where no task waits for the load, the next read repeats it.
        task.exception()

"""What the directory and its like remember, on an event loop, which never waits for Postgres itself.

What is remembered is enough for nearly every request. The rest is asked for in threads, once for all who wait for the
same. What is asked for often is asked for anew before it is too old to count, so that nobody waits at all.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from core.threads import DatabaseThreads
from tenants import directory
from tenants.directory import NotRemembered, Remembered, ShortMemory
from tenants.errors import NotProven

#: More than the lookups of any proof. What is loaded is forgotten at once only where far too many ask.
MOST_LOOKUPS = 4

T = TypeVar("T")
V = TypeVar("V")
Key: TypeAlias = tuple[ShortMemory[Any], str]

#: What is being asked for at this moment, by the threads that do it.
_under_way: WeakKeyDictionary[DatabaseThreads, dict[Key, "asyncio.Task[Any]"]] = WeakKeyDictionary()


async def with_lookups(decide: Callable[[Remembered], T], threads: DatabaseThreads) -> T:
    """Return what is decided by what is remembered, once enough is. `decide` may be called more than once."""
    for _ in range(MOST_LOOKUPS):
        remembered = Remembered()
        try:
            decided = decide(remembered)
        except NotRemembered as missing:
            # Shielded: others wait for it too, and this request may be canceled.
            await asyncio.shield(_load(missing, threads))
        else:
            for each in remembered.aging:
                _load(each, threads)
            return decided
    raise NotProven


async def look_up(memory: ShortMemory[V], key: str, threads: DatabaseThreads) -> V:
    """Return what is remembered under a key, and wait for Postgres only where nothing is."""
    try:
        value, age = memory.peek(key)
    except NotRemembered as missing:
        loaded: V = await asyncio.shield(_load(missing, threads))
        return loaded
    if age > directory.AGING_SECONDS:
        _load(NotRemembered(memory, key), threads)
    return value


def _load(missing: NotRemembered, threads: DatabaseThreads) -> "asyncio.Task[Any]":
    """Ask for it in a thread, unless that is being done."""
    tasks = _under_way.setdefault(threads, {})
    key = (missing.memory, missing.key)
    if key not in tasks:
        tasks[key] = asyncio.create_task(threads.run(missing.memory.load, missing.key))
        tasks[key].add_done_callback(lambda task: _done(tasks, key, task))
    return tasks[key]


def _done(tasks: dict[Key, "asyncio.Task[Any]"], key: Key, task: "asyncio.Task[Any]") -> None:
    del tasks[key]
    if not task.cancelled():
        # Looked at, so that asyncio does not complain: where nobody waits, the next one asks again.
        task.exception()

"""What runs now, over all processes: each tells of its own streams along with its beat, for operators to look at.

It costs a live request nothing: no trip of its own, and what is told is bounded, whatever runs. In Redis that is one
list of processes, and for each of them that runs anything a key of at most `MOST_TOLD` lines, which ends with it.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from msgspec import Struct, msgpack

from core.redis import redis_errors
from streams.entries import BEAT_SECONDS, channel, encode, running_key
from streams.here import Here
from streams.live import LiveStream

#: The processes that ran something lately, by when they last said so.
PROCESSES = "nd:processes"
#: It is told with every fourth beat, and forgotten when that was missed three times.
TOLD_BEATS = 4
TOLD_MS = int(3 * TOLD_BEATS * BEAT_SECONDS * 1000)
#: A process that said nothing for so long is no longer asked for; clocks of machines may differ by less.
FORGOTTEN_SECONDS = 600
#: Of one process, the oldest, for these are what one looks for; and of all together, the same.
MOST_TOLD, MOST_SHOWN = 100, 200
MOST_PROCESSES = 1000


class Running(Struct, frozen=True, gc=False, array_like=True):
    """One stream that runs, without a word of what is asked or answered."""

    id: str
    site: str
    model: str
    dialect: str
    kind: str
    created_at: float
    events: int
    bytes: int
    #: In the process that serves it.
    readers: int
    detached: bool


class Told(Struct, frozen=True, array_like=True):
    """What one process tells."""

    #: How many run there, with those that are not among the streams here.
    count: int
    streams: list[Running]


@dataclass(frozen=True, slots=True)
class Seen:
    """One stream as an operator sees it."""

    running: Running
    process: str
    #: How many other processes have readers of it.
    processes_reading: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What runs on all processes, as of some seconds ago."""

    #: The oldest first.
    streams: tuple[Seen, ...]
    #: With those that are not among them.
    count: int


_decode = msgpack.Decoder(Told).decode


class Telling:
    """What one process has told."""

    def __init__(self, process_id: str, here: Here) -> None:
        self._process_id = process_id
        self._here = here
        self._beats_to_wait = 0
        self._has_told = False

    def add_to(self, pipeline: Any) -> None:
        """Add to a beat's commands, when it is time, what runs here; nothing where nothing does."""
        if self._beats_to_wait:
            self._beats_to_wait -= 1
            return
        told = tell(writer.stream for writer in self._here.writers.values())
        if told.count:
            self._beats_to_wait = TOLD_BEATS - 1
            now = time.time()
            pipeline.set(running_key(self._process_id), encode(told), px=TOLD_MS)
            pipeline.zadd(PROCESSES, {self._process_id: now})
            pipeline.zremrangebyscore(PROCESSES, "-inf", now - FORGOTTEN_SECONDS)
            pipeline.expire(PROCESSES, FORGOTTEN_SECONDS)
        elif self._has_told:
            pipeline.delete(running_key(self._process_id))
        self._has_told = bool(told.count)


def tell(streams: Iterable[LiveStream]) -> Told:
    """Return what is told of streams: how many run, and the oldest."""
    # Streams stand in the order in which they began.
    running = [stream for stream in streams if stream.is_running]
    return Told(len(running), [_line(stream) for stream in running[:MOST_TOLD]])


def read_running(server: redis.Redis) -> Overview:
    """Return what all processes run; for code that may wait. Raises `RedisAway`."""
    with redis_errors():
        found: Any = server.zrange(PROCESSES, 0, MOST_PROCESSES - 1, desc=True)
        processes = [each.decode() for each in found]
        packed: Any = server.mget([running_key(each) for each in processes]) if processes else []
        told = {process: _decode(each) for process, each in zip(processes, packed, strict=True) if each}
        oldest = _oldest(told)
        reading = _processes_reading(server, [running.id for _, running in oldest])
    return Overview(
        tuple(Seen(running, process, reading[running.id]) for process, running in oldest),
        sum(each.count for each in told.values()),
    )


def _line(stream: LiveStream) -> Running:
    about = stream.about
    return Running(
        id=about.id,
        site=about.site,
        model=about.model,
        dialect=about.dialect,
        kind=about.kind,
        created_at=about.created_at,
        events=stream.last,
        bytes=stream.data_bytes,
        readers=stream.readers,
        detached=stream.detached,
    )


def _oldest(told: Mapping[str, Told]) -> list[tuple[str, Running]]:
    found = [(process, running) for process, each in told.items() for running in each.streams]
    return sorted(found, key=lambda each: each[1].created_at)[:MOST_SHOWN]


def _processes_reading(server: redis.Redis, stream_ids: list[str]) -> dict[str, int]:
    """Return how many processes follow each stream that they do not serve: one subscription for all their readers."""
    if not stream_ids:
        return {}
    counts: Any = server.pubsub_numsub(*map(channel, stream_ids))
    return {stream_id: int(count) for stream_id, (_, count) in zip(stream_ids, counts, strict=True)}

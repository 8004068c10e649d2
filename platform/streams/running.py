"""What runs now, over all processes: each tells of its own streams along with its beat, for operators to look at.

It costs a live request nothing: no trip of its own, and what is told is bounded, whatever runs. In Redis that is one
list of processes, and a key of at most `MAX_REPORTED_STREAMS` lines for each that runs streams, which expires with it.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from msgspec import Struct, msgpack

from core.redis import translate_redis_errors
from streams.entries import HEARTBEAT_SECONDS, channel_name, encode, process_report_key
from streams.here import ProcessStreams
from streams.live import LocalStream

#: The processes that ran something lately, by when they last said so.
PROCESSES_KEY = "nd:processes"
#: It is told with every fourth beat, and forgotten when that was missed three times.
REPORT_EVERY_HEARTBEATS = 4
REPORT_TTL_MS = int(3 * REPORT_EVERY_HEARTBEATS * HEARTBEAT_SECONDS * 1000)
#: A process that said nothing for so long is no longer asked for; clocks of machines may differ by less.
PROCESS_LIST_TTL_SECONDS = 600
#: Of one process, the oldest, for these are what one looks for; and of all together, the same.
MAX_REPORTED_STREAMS, MAX_LISTED_STREAMS = 100, 200
MAX_PROCESSES = 1000


class RunningStream(Struct, frozen=True, gc=False, array_like=True):
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


class ProcessReport(Struct, frozen=True, array_like=True):
    """What one process tells."""

    #: How many run there, with those that are not among the streams here.
    count: int
    streams: list[RunningStream]


@dataclass(frozen=True, slots=True)
class ActiveStream:
    """One stream as an operator sees it."""

    running: RunningStream
    process: str
    #: How many other processes have readers of it.
    processes_reading: int


@dataclass(frozen=True, slots=True)
class ActiveStreams:
    """What runs on all processes, as of some seconds ago."""

    #: The oldest first.
    streams: tuple[ActiveStream, ...]
    #: With those that are not among them.
    count: int


_decode = msgpack.Decoder(ProcessReport).decode


class StreamReporter:
    """What one process has told."""

    def __init__(self, process_id: str, here: ProcessStreams) -> None:
        self._process_id = process_id
        self._streams = here
        self._heartbeats_to_skip = 0
        self._has_reported = False

    def add_to(self, pipeline: Any) -> None:
        """Add to a beat's commands, when it is time, what runs here; nothing where nothing does."""
        if self._heartbeats_to_skip:
            self._heartbeats_to_skip -= 1
            return
        told = build_report(writer.stream for writer in self._streams.writers.values())
        if told.count:
            self._heartbeats_to_skip = REPORT_EVERY_HEARTBEATS - 1
            now = time.time()
            pipeline.set(process_report_key(self._process_id), encode(told), px=REPORT_TTL_MS)
            pipeline.zadd(PROCESSES_KEY, {self._process_id: now})
            pipeline.zremrangebyscore(PROCESSES_KEY, "-inf", now - PROCESS_LIST_TTL_SECONDS)
            pipeline.expire(PROCESSES_KEY, PROCESS_LIST_TTL_SECONDS)
        elif self._has_reported:
            pipeline.delete(process_report_key(self._process_id))
        self._has_reported = bool(told.count)


def build_report(streams: Iterable[LocalStream]) -> ProcessReport:
    """Return what is told of streams: how many run, and the oldest."""
    # Streams stand in the order in which they began.
    running = [stream for stream in streams if stream.is_running]
    return ProcessReport(len(running), [_to_running_stream(stream) for stream in running[:MAX_REPORTED_STREAMS]])


def read_active_streams(server: redis.Redis) -> ActiveStreams:
    """Return what all processes run; for code that may wait. Raises `RedisAway`."""
    with translate_redis_errors():
        found: Any = server.zrange(PROCESSES_KEY, 0, MAX_PROCESSES - 1, desc=True)
        processes = [each.decode() for each in found]
        packed: Any = server.mget([process_report_key(each) for each in processes]) if processes else []
        told = {process: _decode(each) for process, each in zip(processes, packed, strict=True) if each}
        oldest = _oldest_streams(told)
        reading = _count_reading_processes(server, [running.id for _, running in oldest])
    return ActiveStreams(
        tuple(ActiveStream(running, process, reading[running.id]) for process, running in oldest),
        sum(each.count for each in told.values()),
    )


def _to_running_stream(stream: LocalStream) -> RunningStream:
    about = stream.about
    return RunningStream(
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


def _oldest_streams(told: Mapping[str, ProcessReport]) -> list[tuple[str, RunningStream]]:
    found = [(process, running) for process, each in told.items() for running in each.streams]
    return sorted(found, key=lambda each: each[1].created_at)[:MAX_LISTED_STREAMS]


def _count_reading_processes(server: redis.Redis, stream_ids: list[str]) -> dict[str, int]:
    """Return how many processes follow each stream that they do not serve: one subscription for all their readers."""
    if not stream_ids:
        return {}
    counts: Any = server.pubsub_numsub(*map(channel_name, stream_ids))
    return {stream_id: int(count) for stream_id, (_, count) in zip(stream_ids, counts, strict=True)}

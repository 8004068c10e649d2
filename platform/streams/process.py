"""Heartbeat of a process, and what travels with it: the report of its active streams, and cancel requests to it.

Other processes detect within `HEARTBEAT_TTL_SECONDS` that this one died, and end the streams it served as orphaned.
The report costs live requests nothing: it needs no round trip of its own, and its size is bounded however many streams
run. In Redis it is one sorted set of processes, and per process with running streams one key of at most
`MAX_REPORTED_STREAMS` lines, which expires with the heartbeats.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from msgspec import Struct, msgpack

from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import heartbeat_key
from core.tasks import cancel_and_wait
from streams.buffer import LocalStream
from streams.entries import (
    HEARTBEAT_SECONDS,
    HEARTBEAT_TTL_SECONDS,
    cancel_key,
    channel_name,
    encode,
    process_report_key,
)
from streams.registry import ProcessStreams

log = structlog.get_logger(__name__)

#: Sorted set: the processes that reported running streams lately, by the time of their last report.
PROCESSES_KEY = "nd:processes"
#: A report goes with every fourth heartbeat, and expires when three were missed.
REPORT_EVERY_HEARTBEATS = 4
REPORT_TTL_MS = int(3 * REPORT_EVERY_HEARTBEATS * HEARTBEAT_SECONDS * 1000)
#: A process without a report for this long is removed; the clocks of machines may differ by less.
PROCESS_LIST_TTL_SECONDS = 600
#: The oldest streams are listed, since those are what an operator looks for: per process, and in total.
MAX_REPORTED_STREAMS, MAX_LISTED_STREAMS = 100, 200
MAX_PROCESSES = 1000


class RunningStream(Struct, frozen=True, gc=False, array_like=True):
    """One running stream, without any content of its request or response."""

    id: str
    site: str
    model: str
    wire_format: str
    kind: str
    created_at: float
    events: int
    bytes: int
    #: In the serving process.
    readers: int
    detached: bool


class ProcessReport(Struct, frozen=True, array_like=True):
    """The running streams of one process, as it reports them."""

    #: Of all running streams, those not listed in `streams` included.
    count: int
    streams: list[RunningStream]


@dataclass(frozen=True, slots=True)
class ActiveStream:
    """One running stream, as an operator sees it."""

    stream: RunningStream
    process: str
    #: Number of other processes with readers of it.
    processes_reading: int


@dataclass(frozen=True, slots=True)
class ActiveStreams:
    """The running streams of all processes, as of a few seconds ago."""

    #: The oldest first.
    streams: tuple[ActiveStream, ...]
    #: Of all running streams, those not listed included.
    count: int


_decode_report = msgpack.Decoder(ProcessReport).decode


class ProcessHeartbeat:
    """Renews the key `nd:process:<id>` as long as this process lives."""

    def __init__(self, streams: ProcessStreams) -> None:
        self.id = streams.process_id
        self._streams = streams
        self._task: asyncio.Task[None] | None = None
        self._was_sent = False
        self._reporter = StreamReporter(streams)

    async def start(self) -> None:
        """Send the first heartbeat, and keep sending. If Redis is unavailable, they follow once it is back."""
        await self._beat()
        self._task = asyncio.get_running_loop().create_task(self._heartbeat_loop(), name="streams-heartbeat")

    async def stop(self) -> None:
        """Delete the heartbeat and close the process's streams. Streams that still run are orphaned immediately."""
        await cancel_and_wait(self._task)
        with suppress(RedisUnavailable), translate_redis_errors():
            await self._streams.server.delete(heartbeat_key(self.id), process_report_key(self.id))
        await self._streams.close()

    async def _heartbeat_loop(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        try:
            before, to_cancel = await self._send_heartbeat()
        except RedisUnavailable:
            # Not logged here: the flusher logs the outage when there is something to write.
            return
        if self._was_sent and before is None:
            # Redis was flushed, or unavailable for long, and may have lost the logs too.
            log.warning("process_heartbeat_lost", process=self.id, streams=len(self._streams.writers))
            for writer in list(self._streams.writers.values()):
                writer.rewrite_if_lost()
        self._was_sent = True
        for stream_id in to_cancel:
            if stream := self._streams.find_stream(stream_id.decode()):
                stream.cancel("requested")

    async def _send_heartbeat(self) -> tuple[bytes | None, set[bytes]]:
        """Renew the key; return its previous value, and the ids of the streams to cancel."""
        with translate_redis_errors():
            pipeline: Any = self._streams.server.pipeline(transaction=False)
            pipeline.set(heartbeat_key(self.id), b"1", px=HEARTBEAT_TTL_SECONDS * 1000, get=True)
            pipeline.smembers(cancel_key(self.id))
            self._reporter.add_to(pipeline)
            before, to_cancel, *_ = await pipeline.execute()
        return before, to_cancel


class StreamReporter:
    """Adds the report of this process's running streams to its heartbeats."""

    def __init__(self, streams: ProcessStreams) -> None:
        self._streams = streams
        self._heartbeats_to_skip = 0
        self._has_reported = False

    def add_to(self, pipeline: Any) -> None:
        """Add the report to a heartbeat's commands when it is due; nothing while no stream runs."""
        if self._heartbeats_to_skip:
            self._heartbeats_to_skip -= 1
            return
        report = build_report(writer.stream for writer in self._streams.writers.values())
        process_id = self._streams.process_id
        if report.count:
            self._heartbeats_to_skip = REPORT_EVERY_HEARTBEATS - 1
            now = time.time()
            pipeline.set(process_report_key(process_id), encode(report), px=REPORT_TTL_MS)
            pipeline.zadd(PROCESSES_KEY, {process_id: now})
            pipeline.zremrangebyscore(PROCESSES_KEY, "-inf", now - PROCESS_LIST_TTL_SECONDS)
            pipeline.expire(PROCESSES_KEY, PROCESS_LIST_TTL_SECONDS)
        elif self._has_reported:
            pipeline.delete(process_report_key(process_id))
        self._has_reported = bool(report.count)


def build_report(streams: Iterable[LocalStream]) -> ProcessReport:
    """Return the report of the running ones among `streams`, which must be in the order of their start."""
    running = [stream for stream in streams if stream.is_running]
    return ProcessReport(len(running), [_to_running_stream(stream) for stream in running[:MAX_REPORTED_STREAMS]])


def _to_running_stream(stream: LocalStream) -> RunningStream:
    info = stream.info
    return RunningStream(
        id=info.id,
        site=info.site,
        model=info.model,
        wire_format=info.wire_format,
        kind=info.kind,
        created_at=info.created_at,
        events=stream.last,
        bytes=stream.data_bytes,
        readers=stream.readers,
        detached=stream.detached,
    )


def read_active_streams(server: redis.Redis) -> ActiveStreams:
    """Return the running streams of all processes. Blocking. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        members: Any = server.zrange(PROCESSES_KEY, 0, MAX_PROCESSES - 1, desc=True)
        processes = [member.decode() for member in members]
        packed: Any = server.mget([process_report_key(process) for process in processes]) if processes else []
        reports = {process: _decode_report(each) for process, each in zip(processes, packed, strict=True) if each}
        oldest = _oldest_streams(reports)
        reading = _count_reading_processes(server, [stream.id for _, stream in oldest])
    return ActiveStreams(
        tuple(ActiveStream(stream, process, reading[stream.id]) for process, stream in oldest),
        sum(report.count for report in reports.values()),
    )


def _oldest_streams(reports: Mapping[str, ProcessReport]) -> list[tuple[str, RunningStream]]:
    streams = [(process, stream) for process, report in reports.items() for stream in report.streams]
    return sorted(streams, key=lambda pair: pair[1].created_at)[:MAX_LISTED_STREAMS]


def _count_reading_processes(server: redis.Redis, stream_ids: list[str]) -> dict[str, int]:
    """Return by stream the number of processes subscribed to it: each has one subscription for all its readers."""
    if not stream_ids:
        return {}
    counts: Any = server.pubsub_numsub(*map(channel_name, stream_ids))
    return {stream_id: int(count) for stream_id, (_, count) in zip(stream_ids, counts, strict=True)}


def queue_cancel(pipeline: Any, process_id: str, stream_id: str) -> None:
    """Add a cancel request to a pipeline. The serving process reads it with its next heartbeat."""
    pipeline.sadd(cancel_key(process_id), stream_id)
    pipeline.expire(cancel_key(process_id), 2 * HEARTBEAT_TTL_SECONDS)


def request_cancel_blocking(server: redis.Redis, process_id: str, stream_id: str) -> None:
    """Request that a process cancels a stream: `streams.reader.request_cancel` for blocking code.

    Raises `RedisUnavailable`.
    """
    with translate_redis_errors():
        pipeline = server.pipeline(transaction=False)
        queue_cancel(pipeline, process_id, stream_id)
        pipeline.execute()

"""Streams of other processes, followed here over one connection, however many there are and however many read them."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.connection import AbstractConnection

from core.redis import REPLY_TIMEOUT_SECONDS, RedisUnavailable, translate_redis_errors
from streams.background import cancel_and_wait
from streams.buffer import EventBuffer
from streams.entries import HEARTBEAT_SECONDS, LogEntry, decode_entry, heartbeat_key
from streams.entries import channel_name as channel

log = structlog.get_logger(__name__)

#: What is remembered of each, so that readers who keep up need not read the log.
SUBSCRIPTION_BUFFER_BYTES = 256 * 1024
#: How often it is seen whether the processes that serve them live.
CHECK_SECONDS = 0.5
#: A mark that was never seen may only have been flushed: it is made again at the next beat.
MISSING_HEARTBEAT_GRACE_SECONDS = 2 * HEARTBEAT_SECONDS
#: The subscription is kept for so many looks after the last reader left.
IDLE_CHECKS = 2
#: For the server to confirm that we hear of a stream.
SUBSCRIBE_TIMEOUT_SECONDS = 2 * REPLY_TIMEOUT_SECONDS
#: The connection is pinged at every look. Silent for so long, it is dead.
READ_TIMEOUT_SECONDS = 3.0


class StreamSubscription(EventBuffer):
    """The newest events of a stream that another process serves, as it tells them."""

    __slots__ = ("failure", "is_orphaned", "process", "ready", "stream_id", "ref_count", "version")

    def __init__(self, stream_id: str, process: str) -> None:
        # Before the first event is told, it holds nothing that anybody could go on from.
        super().__init__(SUBSCRIPTION_BUFFER_BYTES, last=-1)
        self.stream_id = stream_id
        self.process = process
        self.ref_count = 0
        #: Once it is set, nothing new stays unseen.
        self.ready = asyncio.Event()
        #: Moves on when something may stand in the log that is not here.
        self.version = 0
        self.is_orphaned = False
        self.failure: RedisUnavailable | None = None

    def on_entry(self, entry: LogEntry) -> None:
        """Take in what the serving process tells. What was missed before is not held, and so read from the log."""
        events = [event for event in entry.events if event.seq > self.last]
        if events and events[0].seq != self.last + 1:
            self.reset(events[0].seq - 1)
        self.take(events)
        if entry.last > self.last:
            self.reset(entry.last)
        self.version += 1
        if entry.end:
            self.finish(entry.end)
        self.wake()

    def reset(self, last: int) -> None:
        """Hold nothing, and expect what comes after `last`."""
        self.events.clear()
        self.held_bytes, self.last = 0, last

    def invalidate(self) -> None:
        """Something may have been missed: everybody looks into the log."""
        self.reset(-1)
        self.version += 1
        self.wake()

    def fail(self, failure: RedisUnavailable) -> None:
        """Nothing more will be told."""
        self.failure = failure
        self.ready.set()
        self.invalidate()

    def mark_orphaned(self) -> None:
        """Its process is gone; the log has all there is."""
        self.is_orphaned = True
        self.invalidate()


class StreamSubscriptions:
    """One subscription to all streams that are followed here. Its task is there only while there are any."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        self._subscriptions: dict[str, StreamSubscription] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        #: Until when each serving process has promised to be alive.
        self._alive_until: dict[str, float] = {}
        self._has_received = False
        self._is_stopped = False

    async def join(self, stream_id: str, process: str) -> StreamSubscription:
        """Follow a stream. Returns when nothing new can stay unseen. Raises `RedisUnavailable`."""
        if self._is_stopped:
            raise RedisUnavailable("This process is shutting down and follows no more streams.")
        tail = self._subscriptions.get(stream_id)
        is_new = tail is None
        if tail is None:
            tail = self._subscriptions[stream_id] = StreamSubscription(stream_id, process)
        tail.ref_count += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-subscriptions")
        try:
            if is_new:
                await self._send("SUBSCRIBE", stream_id)
            with translate_redis_errors():
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_SECONDS):
                    await tail.ready.wait()
            if tail.failure:
                raise tail.failure
        except BaseException:
            await self.leave(tail)
            raise
        return tail

    async def leave(self, tail: StreamSubscription) -> None:
        """Follow it no longer, if nobody else does."""
        tail.ref_count -= 1
        if not tail.ref_count and self._subscriptions.get(tail.stream_id) is tail:
            del self._subscriptions[tail.stream_id]
            await self._send("UNSUBSCRIBE", tail.stream_id)

    async def stop(self) -> None:
        """Stop following."""
        self._is_stopped = True
        await cancel_and_wait(self._task)

    async def _send(self, command: str, *stream_ids: str) -> None:
        # One that is broken would connect itself again, behind the back of who listens. That one sees it too, and
        # subscribes anew to all there are.
        if self._connection and self._connection.is_connected and stream_ids:
            with suppress(RedisUnavailable), translate_redis_errors():
                await self._connection.send_command(command, *map(channel, stream_ids))

    async def _run(self) -> None:
        try:
            while self._subscriptions:
                self._has_received = False
                try:
                    with translate_redis_errors():
                        await self._run_connection()
                except RedisUnavailable as error:
                    self._on_connection_lost(error)
        finally:
            self._task = None
            self._fail(RedisUnavailable("The subscription was stopped."))

    def _on_connection_lost(self, error: RedisUnavailable) -> None:
        """One that broke is made anew, and what was missed then is read; one that could not be made is given up."""
        log.warning(
            "stream_subscription_lost", error=str(error), streams=len(self._subscriptions), retrying=self._has_received
        )
        if not self._has_received:
            self._fail(error)

    def _fail(self, error: RedisUnavailable) -> None:
        failed, self._subscriptions = self._subscriptions, {}
        for tail in failed.values():
            tail.fail(error)

    async def _run_connection(self) -> None:
        connection: AbstractConnection = self._server.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            for tail in self._subscriptions.values():
                tail.ready.clear()
            await self._send("SUBSCRIBE", *self._subscriptions)
            await self._watch_connection(connection)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _watch_connection(self, connection: AbstractConnection) -> None:
        """Listen, and look after the serving processes, until nobody follows anything for a while."""
        listening = asyncio.get_running_loop().create_task(self._listen(connection), name="streams-listener")
        idle = 0
        try:
            while idle < IDLE_CHECKS:
                await asyncio.wait({listening}, timeout=CHECK_SECONDS)
                if listening.done():
                    listening.result()
                elif connection.is_connected:
                    await connection.send_command("PING")
                await self._check_processes()
                idle = 0 if self._subscriptions else idle + 1
        finally:
            await cancel_and_wait(listening)

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            answer = await connection.read_response(timeout=READ_TIMEOUT_SECONDS)
            if answer is None:
                raise TimeoutError("No data on the subscription: read timed out.")
            self._has_received = True
            # A ping is answered by a bare word while there is no subscription.
            if isinstance(answer, list) and answer[0] in (b"message", b"subscribe"):
                self._on_message(*answer)

    def _on_message(self, _: bytes, channel_name: bytes, told: bytes | int) -> None:
        tail = self._subscriptions.get(channel_name.decode().split(":")[2])
        if tail and isinstance(told, bytes):
            tail.on_entry(decode_entry(told))
        elif tail:
            tail.invalidate()
            tail.ready.set()

    async def _check_processes(self) -> None:
        processes = sorted({tail.process for tail in self._subscriptions.values() if not tail.is_orphaned})
        with translate_redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            for process in processes:
                pipeline.pttl(heartbeat_key(process))
            left = await pipeline.execute()
        gone = self._find_dead_processes(dict(zip(processes, left, strict=True)), time.monotonic())
        for tail in self._subscriptions.values():
            if tail.process in gone:
                tail.mark_orphaned()

    def _find_dead_processes(self, milliseconds_left: dict[str, int], now: float) -> set[str]:
        """Return the processes that have not renewed their mark in time. One whose mark was flushed has till then."""
        self._alive_until = {
            process: now + left / 1000
            if left > 0
            else self._alive_until.get(process, now + MISSING_HEARTBEAT_GRACE_SECONDS)
            for process, left in milliseconds_left.items()
        }
        return {process for process, until in self._alive_until.items() if until <= now}

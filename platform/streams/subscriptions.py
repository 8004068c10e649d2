"""Pub/sub of streams that other processes serve: one connection for all of them, however many readers each has.

A subscription buffers the newest events, so readers that keep up never read the log. It guarantees that nothing is
missed silently: whenever messages may have been lost, `version` changes, and readers look into the log.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.connection import AbstractConnection

from core.redis import REPLY_TIMEOUT_SECONDS, RedisUnavailable, translate_redis_errors
from core.redis_keys import heartbeat_key
from core.tasks import cancel_and_wait
from streams.buffer import EventBuffer
from streams.entries import HEARTBEAT_SECONDS, LogEntry, channel_name, decode_entry

log = structlog.get_logger(__name__)

#: Events buffered per stream, so that readers that keep up need not read the log.
SUBSCRIPTION_BUFFER_BYTES = 256 * 1024
#: Interval of the liveness check of the serving processes, and of the ping of the connection.
CHECK_SECONDS = 0.5
#: A missing heartbeat may only have been flushed from Redis: its process writes it again within one interval.
MISSING_HEARTBEAT_GRACE_SECONDS = 2 * HEARTBEAT_SECONDS
#: The connection stays open for this many checks after the last reader left.
IDLE_CHECKS = 2
#: Limit for the server's confirmation of a subscription.
SUBSCRIBE_TIMEOUT_SECONDS = 2 * REPLY_TIMEOUT_SECONDS
#: The connection is pinged at every check; without any reply for this long it is dead.
READ_TIMEOUT_SECONDS = 3.0


class StreamSubscription(EventBuffer):
    """The newest events of a stream that another process serves, as it publishes them."""

    __slots__ = ("failure", "is_orphaned", "process", "ready", "stream_id", "ref_count", "version")

    def __init__(self, stream_id: str, process: str) -> None:
        # -1: before the first message it holds no position that a reader could continue from.
        super().__init__(SUBSCRIPTION_BUFFER_BYTES, last=-1)
        self.stream_id = stream_id
        self.process = process
        self.ref_count = 0
        #: Set while the server has confirmed the subscription: no new entry can be missed.
        self.ready = asyncio.Event()
        #: Changes whenever the log may hold something that this buffer does not.
        self.version = 0
        self.is_orphaned = False
        self.failure: RedisUnavailable | None = None

    def on_entry(self, entry: LogEntry) -> None:
        """Add the events of a published entry. Events missed before it are not held, and so are read from the log."""
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
        """Drop all events, and expect the one after `last` next."""
        self.events.clear()
        self.held_bytes, self.last = 0, last

    def invalidate(self) -> None:
        """Entries may have been missed: make every reader look into the log."""
        self.reset(-1)
        self.version += 1
        self.wake()

    def fail(self, failure: RedisUnavailable) -> None:
        """End the subscription with an error; no more entries will come."""
        self.failure = failure
        self.ready.set()
        self.invalidate()

    def mark_orphaned(self) -> None:
        """The serving process has died; the log holds everything there will ever be."""
        self.is_orphaned = True
        self.invalidate()


class StreamSubscriptions:
    """All subscriptions of this process, over one connection. Its task exists only while there are any."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        self._subscriptions: dict[str, StreamSubscription] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        #: By serving process: the expiry of its heartbeat, by the monotonic clock.
        self._alive_until: dict[str, float] = {}
        self._has_received = False
        self._is_stopped = False

    async def subscribe(self, stream_id: str, process: str) -> StreamSubscription:
        """Return the stream's subscription, once no new entry can be missed. Raises `RedisUnavailable`.

        Every caller must `unsubscribe` once.
        """
        if self._is_stopped:
            raise RedisUnavailable("This process is shutting down and follows no more streams.")
        subscription = self._subscriptions.get(stream_id)
        is_new = subscription is None
        if subscription is None:
            subscription = self._subscriptions[stream_id] = StreamSubscription(stream_id, process)
        subscription.ref_count += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-subscriptions")
        try:
            if is_new:
                await self._send("SUBSCRIBE", stream_id)
            with translate_redis_errors():
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_SECONDS):
                    await subscription.ready.wait()
            if subscription.failure:
                raise subscription.failure
        except BaseException:
            await self.unsubscribe(subscription)
            raise
        return subscription

    async def unsubscribe(self, subscription: StreamSubscription) -> None:
        """Release the subscription; the last reader ends it."""
        subscription.ref_count -= 1
        if not subscription.ref_count and self._subscriptions.get(subscription.stream_id) is subscription:
            del self._subscriptions[subscription.stream_id]
            await self._send("UNSUBSCRIBE", subscription.stream_id)

    async def stop(self) -> None:
        """End all subscriptions, and refuse new ones."""
        self._is_stopped = True
        await cancel_and_wait(self._task)

    async def _send(self, command: str, *stream_ids: str) -> None:
        # Sending on a broken connection would reconnect it unnoticed by the listener. The listener notices the break
        # too, reconnects, and subscribes to all streams again.
        if self._connection and self._connection.is_connected and stream_ids:
            with suppress(RedisUnavailable), translate_redis_errors():
                await self._connection.send_command(command, *map(channel_name, stream_ids))

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
            self._fail_all(RedisUnavailable("The subscription was stopped."))

    def _on_connection_lost(self, error: RedisUnavailable) -> None:
        """Reconnect after a working connection broke; fail all readers if no connection could be made."""
        log.warning(
            "stream_subscription_lost", error=str(error), streams=len(self._subscriptions), retrying=self._has_received
        )
        if not self._has_received:
            self._fail_all(error)

    def _fail_all(self, error: RedisUnavailable) -> None:
        failed, self._subscriptions = self._subscriptions, {}
        for subscription in failed.values():
            subscription.fail(error)

    async def _run_connection(self) -> None:
        connection: AbstractConnection = self._server.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            for subscription in self._subscriptions.values():
                subscription.ready.clear()
            await self._send("SUBSCRIBE", *self._subscriptions)
            await self._watch_connection(connection)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _watch_connection(self, connection: AbstractConnection) -> None:
        """Listen and check the serving processes, until there has been no subscription for `IDLE_CHECKS`."""
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
            reply = await connection.read_response(timeout=READ_TIMEOUT_SECONDS)
            if reply is None:
                raise TimeoutError("No data on the subscription: read timed out.")
            self._has_received = True
            # Without a subscription the reply to a ping is not a list.
            if isinstance(reply, list) and reply[0] in (b"message", b"subscribe"):
                self._on_message(*reply)

    def _on_message(self, _: bytes, channel: bytes, payload: bytes | int) -> None:
        """Handle an entry (bytes), or the confirmation of a subscription (a number)."""
        subscription = self._subscriptions.get(channel.decode().split(":")[2])
        if subscription and isinstance(payload, bytes):
            subscription.on_entry(decode_entry(payload))
        elif subscription:
            subscription.invalidate()
            subscription.ready.set()

    async def _check_processes(self) -> None:
        """Mark the streams of dead processes as orphaned."""
        processes = sorted({each.process for each in self._subscriptions.values() if not each.is_orphaned})
        with translate_redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            for process in processes:
                pipeline.pttl(heartbeat_key(process))
            left = await pipeline.execute()
        dead = self._find_dead_processes(dict(zip(processes, left, strict=True)), time.monotonic())
        for subscription in self._subscriptions.values():
            if subscription.process in dead:
                subscription.mark_orphaned()

    def _find_dead_processes(self, milliseconds_left: dict[str, int], now: float) -> set[str]:
        """Return the processes whose heartbeat has expired.

        A heartbeat that is missing from Redis counts until the expiry seen last: it may have been flushed.
        """
        self._alive_until = {
            process: now + left / 1000
            if left > 0
            else self._alive_until.get(process, now + MISSING_HEARTBEAT_GRACE_SECONDS)
            for process, left in milliseconds_left.items()
        }
        return {process for process, until in self._alive_until.items() if until <= now}

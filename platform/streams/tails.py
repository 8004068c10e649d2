"""Streams of other processes, followed here over one connection, however many there are and however many read them."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.connection import AbstractConnection

from core.redis import ANSWER_SECONDS, RedisAway, redis_errors
from streams.background import stop_task
from streams.buffer import EventBuffer
from streams.entries import BEAT_SECONDS, Entry, channel, decode_entry, process_key

log = structlog.get_logger(__name__)

#: What is remembered of each, so that readers who keep up need not read the log.
TAIL_BYTES = 256 * 1024
#: How often it is seen whether the processes that serve them live.
LOOK_SECONDS = 0.5
#: A mark that was never seen may only have been flushed: it is made again at the next beat.
UNSEEN_SECONDS = 2 * BEAT_SECONDS
#: The subscription is kept for so many looks after the last reader left.
IDLE_LOOKS = 2
#: For the server to confirm that we hear of a stream.
JOIN_SECONDS = 2 * ANSWER_SECONDS
#: The connection is pinged at every look. Silent for so long, it is dead.
SILENCE_SECONDS = 3.0


class Tail(EventBuffer):
    """The newest events of a stream that another process serves, as it tells them."""

    __slots__ = ("failure", "is_orphaned", "process", "ready", "stream_id", "users", "version")

    def __init__(self, stream_id: str, process: str) -> None:
        # Before the first event is told, it holds nothing that anybody could go on from.
        super().__init__(TAIL_BYTES, last=-1)
        self.stream_id = stream_id
        self.process = process
        self.users = 0
        #: Once it is set, nothing new stays unseen.
        self.ready = asyncio.Event()
        #: Moves on when something may stand in the log that is not here.
        self.version = 0
        self.is_orphaned = False
        self.failure: RedisAway | None = None

    def tell(self, entry: Entry) -> None:
        """Take in what the serving process tells. What was missed before is not held, and so read from the log."""
        events = [event for event in entry.events if event.seq > self.last]
        if events and events[0].seq != self.last + 1:
            self.forget(events[0].seq - 1)
        self.take(events)
        if entry.last > self.last:
            self.forget(entry.last)
        self.version += 1
        if entry.end:
            self.finish(entry.end)
        self.wake()

    def forget(self, last: int) -> None:
        """Hold nothing, and expect what comes after `last`."""
        self.events.clear()
        self.held_bytes, self.last = 0, last

    def doubt(self) -> None:
        """Something may have been missed: everybody looks into the log."""
        self.forget(-1)
        self.version += 1
        self.wake()

    def fail(self, failure: RedisAway) -> None:
        """Nothing more will be told."""
        self.failure = failure
        self.ready.set()
        self.doubt()

    def orphan(self) -> None:
        """Its process is gone; the log has all there is."""
        self.is_orphaned = True
        self.doubt()


class Tails:
    """One subscription to all streams that are followed here. Its task is there only while there are any."""

    def __init__(self, server: redis.asyncio.Redis) -> None:
        self._server = server
        self._tails: dict[str, Tail] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        #: Until when each serving process has promised to be alive.
        self._alive_until: dict[str, float] = {}
        self._was_heard = False
        self._is_stopped = False

    async def join(self, stream_id: str, process: str) -> Tail:
        """Follow a stream. Returns when nothing new can stay unseen. Raises `RedisAway`."""
        if self._is_stopped:
            raise RedisAway("This process has stopped to follow streams.")
        tail = self._tails.get(stream_id)
        is_new = tail is None
        if tail is None:
            tail = self._tails[stream_id] = Tail(stream_id, process)
        tail.users += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streams-tails")
        try:
            if is_new:
                await self._send("SUBSCRIBE", stream_id)
            with redis_errors():
                async with asyncio.timeout(JOIN_SECONDS):
                    await tail.ready.wait()
            if tail.failure:
                raise tail.failure
        except BaseException:
            await self.leave(tail)
            raise
        return tail

    async def leave(self, tail: Tail) -> None:
        """Follow it no longer, if nobody else does."""
        tail.users -= 1
        if not tail.users and self._tails.get(tail.stream_id) is tail:
            del self._tails[tail.stream_id]
            await self._send("UNSUBSCRIBE", tail.stream_id)

    async def stop(self) -> None:
        """Stop following."""
        self._is_stopped = True
        await stop_task(self._task)

    async def _send(self, command: str, *stream_ids: str) -> None:
        # One that is broken would connect itself again, behind the back of who listens. That one sees it too, and
        # subscribes anew to all there are.
        if self._connection and self._connection.is_connected and stream_ids:
            with suppress(RedisAway), redis_errors():
                await self._connection.send_command(command, *map(channel, stream_ids))

    async def _run(self) -> None:
        try:
            while self._tails:
                self._was_heard = False
                try:
                    with redis_errors():
                        await self._follow()
                except RedisAway as error:
                    self._note_lost(error)
        finally:
            self._task = None
            self._fail(RedisAway("The subscription was stopped."))

    def _note_lost(self, error: RedisAway) -> None:
        """One that broke is made anew, and what was missed then is read; one that could not be made is given up."""
        log.warning("stream_tails_lost", error=str(error), streams=len(self._tails), again=self._was_heard)
        if not self._was_heard:
            self._fail(error)

    def _fail(self, error: RedisAway) -> None:
        failed, self._tails = self._tails, {}
        for tail in failed.values():
            tail.fail(error)

    async def _follow(self) -> None:
        connection: AbstractConnection = self._server.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            for tail in self._tails.values():
                tail.ready.clear()
            await self._send("SUBSCRIBE", *self._tails)
            await self._watch(connection)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _watch(self, connection: AbstractConnection) -> None:
        """Listen, and look after the serving processes, until nobody follows anything for a while."""
        listening = asyncio.get_running_loop().create_task(self._listen(connection), name="streams-listener")
        idle = 0
        try:
            while idle < IDLE_LOOKS:
                await asyncio.wait({listening}, timeout=LOOK_SECONDS)
                if listening.done():
                    listening.result()
                elif connection.is_connected:
                    await connection.send_command("PING")
                await self._look_after_processes()
                idle = 0 if self._tails else idle + 1
        finally:
            await stop_task(listening)

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            answer = await connection.read_response(timeout=SILENCE_SECONDS)
            if answer is None:
                raise TimeoutError("The subscription fell silent.")
            self._was_heard = True
            # A ping is answered by a bare word while there is no subscription.
            if isinstance(answer, list) and answer[0] in (b"message", b"subscribe"):
                self._hear(*answer)

    def _hear(self, _: bytes, channel_name: bytes, told: bytes | int) -> None:
        tail = self._tails.get(channel_name.decode().split(":")[2])
        if tail and isinstance(told, bytes):
            tail.tell(decode_entry(told))
        elif tail:
            tail.doubt()
            tail.ready.set()

    async def _look_after_processes(self) -> None:
        processes = sorted({tail.process for tail in self._tails.values() if not tail.is_orphaned})
        with redis_errors():
            pipeline: Any = self._server.pipeline(transaction=False)
            for process in processes:
                pipeline.pttl(process_key(process))
            left = await pipeline.execute()
        gone = self._find_gone(dict(zip(processes, left, strict=True)), time.monotonic())
        for tail in self._tails.values():
            if tail.process in gone:
                tail.orphan()

    def _find_gone(self, milliseconds_left: dict[str, int], now: float) -> set[str]:
        """Return the processes that have not renewed their mark in time. One whose mark was flushed has till then."""
        self._alive_until = {
            process: now + left / 1000 if left > 0 else self._alive_until.get(process, now + UNSEEN_SECONDS)
            for process, left in milliseconds_left.items()
        }
        return {process for process, until in self._alive_until.items() if until <= now}

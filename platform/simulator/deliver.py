"""Putting a reply on the wire: at its pace, with its faults, noticing a client that leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from simulator.compose import Usage
from simulator.connection import Connection
from simulator.controls import Controls
from simulator.faults import Break, Ending, Fault
from simulator.journal import Entry, Journal, Outcome
from simulator.replies import Flow, Frame, Headers, Reply, Whole

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

#: Between two writes that must not become one segment. The loop's clock knows no less than a millisecond.
BETWEEN_SEGMENTS = 0.001


@dataclass(frozen=True, slots=True)
class Line:
    """The way to one client: ASGI for what it can do, the connection for the rest, and the journal's entry."""

    connection: Connection
    send: Send
    journal: Journal
    entry: Entry

    async def start(self, status: int, headers: Headers) -> None:
        self.entry.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def pause(self, seconds: float) -> bool:
        """True if the client is still there afterwards; otherwise that is journaled."""
        if seconds > 0:
            await self.connection.pause(seconds)
        if self.connection.lost:
            self.lose(Outcome.DISCONNECTED)
        return not self.connection.lost

    def lose(self, outcome: Outcome) -> None:
        self.entry.client_disconnected = True
        self.finish(outcome)

    def finish(self, outcome: Outcome) -> None:
        """Close the entry. Always before the client can see the end, so that it never reads of a running call."""
        self.journal.finish(self.entry, outcome)

    def serve(self, usage: Usage, output_tokens: int, tells_usage: bool) -> None:
        """Account for what leaves now: the prompt is charged with the first byte, the output as it goes."""
        self.entry.input_tokens = usage.input_tokens
        self.entry.cached_tokens = usage.cached_tokens
        self.entry.cache_write_tokens = usage.cache_write_tokens
        self.entry.reasoning_tokens = min(usage.reasoning_tokens, output_tokens)
        self.entry.output_tokens = output_tokens
        self.entry.usage_reported = self.entry.usage_reported or tells_usage


async def deliver(reply: Reply, fault: Fault, controls: Controls, line: Line) -> None:
    """Send the reply, or as much of it as the fault lets through, and close its entry in the journal."""
    match reply:
        case Whole():
            await _deliver_whole(reply, fault, controls, line)
        case Flow():
            await _Stream(reply, controls, line).run(fault)


async def _deliver_whole(reply: Whole, fault: Fault, controls: Controls, line: Line) -> None:
    if not await line.pause(_seconds_before(reply, controls)):
        return
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    half = 0
    if isinstance(fault, Break):
        half = 0 if fault.after == 0 else len(reply.body) // 2
        if half:
            await line.start(reply.status, headers)
            await line.body(reply.body[:half], more=True)
        if not await _survives(fault, controls, line):
            return
    if reply.usage is not None:
        line.serve(reply.usage, reply.usage.output_tokens, reply.tells_usage)
    outcome = Outcome.OK if reply.status < 400 else Outcome.ERROR
    if controls.slow_loris:
        await _drip(reply.status, headers, reply.body, outcome, controls, line)
        return
    if not half:
        await line.start(reply.status, headers)
    line.finish(outcome)
    await line.body(reply.body[half:])


class _Stream:
    """One stream being written. Frames wait in a batch until there is a reason to send them."""

    def __init__(self, reply: Flow, controls: Controls, line: Line) -> None:
        self._reply = reply
        self._controls = controls
        self._line = line
        self._batch: list[Frame] = []
        self._deltas = 0
        self._is_open = False
        self._now = asyncio.get_running_loop().time
        self._due = self._now() + controls.ttft_ms / 1000

    async def run(self, fault: Fault) -> None:
        frames = self._reply.frames
        if self._controls.slow_loris:
            await self._drip(frames)
            return
        if self._controls.early_headers:
            await self._open()
        stop = _stop_index(frames, fault)
        if not await self._put(frames[:stop]):
            return
        if isinstance(fault, Break):
            await self._flush()
            if fault.how == Ending.ERROR:
                await self._fail()
                return
            if not await _survives(fault, self._controls, self._line):
                return
            self._due = self._now()
            if not await self._put(frames[stop:]):
                return
        await self._finish()

    async def _put(self, frames: list[Frame]) -> bool:
        """Take the frames at their pace. False if the client has left meanwhile."""
        gap = self._controls.inter_token_ms / 1000
        for frame in frames:
            if frame.is_delta:
                # The pace is counted from the start, so a late wake-up does not delay all that follows.
                self._due += gap if self._deltas else 0
                self._deltas += 1
            seconds = self._due - self._now()
            if seconds > 0:
                await self._flush()
                if not await self._line.pause(seconds):
                    return False
            self._batch.append(frame)
        return True

    async def _finish(self) -> None:
        data = b"".join(frame.data for frame in self._batch)
        if self._controls.split_frames:
            await self._flush()
            data = b""
        self._account()
        await self._open()
        if self._line.connection.lost:
            self._line.lose(Outcome.DISCONNECTED)
        else:
            self._line.finish(Outcome.OK)
        await self._line.body(data)

    async def _fail(self) -> None:
        await self._open()
        self._line.finish(Outcome.ERROR_FRAME)
        await self._line.body(self._reply.error)

    async def _flush(self) -> None:
        if not self._batch:
            return
        await self._open()
        batch = self._account()
        if self._controls.split_frames:
            for frame in batch:
                await self._send_split(frame.data)
        else:
            await self._line.body(b"".join(frame.data for frame in batch), more=True)

    def _account(self) -> list[Frame]:
        """Empty the batch, and put it down as served."""
        batch, self._batch = self._batch, []
        if batch:
            tells_usage = any(frame.tells_usage for frame in batch)
            self._line.serve(self._reply.usage, batch[-1].served, tells_usage)
        return batch

    async def _send_split(self, data: bytes) -> None:
        middle = _split_point(data)
        for part in (data[:middle], data[middle:]):
            await self._line.body(part, more=True)
            await self._line.connection.pause(BETWEEN_SEGMENTS)

    async def _drip(self, frames: list[Frame]) -> None:
        if not await self._line.pause(self._controls.ttft_ms / 1000):
            return
        self._batch = frames
        body = b"".join(frame.data for frame in self._account())
        await _drip(200, self._reply.headers, body, Outcome.OK, self._controls, self._line)

    async def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._line.start(200, self._reply.headers)


async def _survives(fault: Break, controls: Controls, line: Line) -> bool:
    """Let the fault happen. True if the answer goes on afterwards, as it may after a silence."""
    await line.connection.flush()
    if line.connection.lost:
        line.lose(Outcome.DISCONNECTED)
        return False
    match fault.how:
        case Ending.CUT:
            line.finish(Outcome.CUT)
            await line.connection.close()
        case Ending.RST:
            line.finish(Outcome.RST)
            await line.connection.reset()
        case _:
            silence = None if controls.stall_ms is None else controls.stall_ms / 1000
            if await line.connection.pause(silence):
                return True
            line.lose(Outcome.STALLED)
    return False


async def _drip(status: int, headers: Headers, body: bytes, outcome: Outcome, controls: Controls, line: Line) -> None:
    """Write the response's head byte by byte, past ASGI, which would write it in one piece."""
    line.entry.status = status
    for byte in _head(status, headers):
        line.connection.write(bytes((byte,)))
        if not await line.pause(controls.slow_loris / 1000):
            return
    line.finish(outcome)
    line.connection.write(body)
    await line.connection.close()


def _head(status: int, headers: Headers) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    lines = [
        f"HTTP/1.1 {status} {phrase}".encode(),
        *(name + b": " + value for name, value in headers),
        b"connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _seconds_before(reply: Whole, controls: Controls) -> float:
    """A whole answer takes as long as its stream would."""
    deltas = controls.deltas or (reply.usage.output_tokens if reply.usage else 0)
    return (controls.ttft_ms + controls.inter_token_ms * max(0, deltas - 1)) / 1000


def _stop_index(frames: list[Frame], fault: Fault) -> int:
    """How many frames leave before the fault. After more deltas than there are means after the last of them."""
    if not isinstance(fault, Break):
        return len(frames)
    if fault.after == 0:
        return 0
    if fault.counts_events and fault.after is not None:
        return min(fault.after, len(frames))
    places = [index for index, frame in enumerate(frames, start=1) if frame.is_delta] or [1]
    after = len(places) // 2 if fault.after is None else fault.after
    return places[min(max(after, 1), len(places)) - 1]


def _split_point(data: bytes) -> int:
    """Inside the first character of several bytes, else in the middle."""
    return next((index + 1 for index, byte in enumerate(data) if byte >= 0xC0), len(data) // 2)

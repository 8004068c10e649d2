"""Sends a response: at its pace, with its faults; detects a client that disconnects."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from simulator.compose import Usage
from simulator.connection import Connection
from simulator.controls import Controls
from simulator.faults import BreakKind, BrokenResponse, Fault
from simulator.journal import CallOutcome, Journal, JournalEntry
from simulator.responses import CompleteResponse, Frame, Headers, SimulatedResponse, StreamedResponse

AsgiSend: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

#: Pause between two writes that must not become one segment. The event loop's clock has a resolution of 1 ms.
SEGMENT_GAP_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """Writes to one client, through ASGI or directly to the connection, and closes the journal's entry."""

    connection: Connection
    send: AsgiSend
    journal: Journal
    entry: JournalEntry

    async def start(self, status: int, headers: Headers) -> None:
        self.entry.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def pause(self, seconds: float) -> bool:
        """Return True if the client is still connected; otherwise journal the disconnect."""
        if seconds > 0:
            await self.connection.pause(seconds)
        if self.connection.is_lost:
            self.finish_abandoned(CallOutcome.DISCONNECTED)
        return not self.connection.is_lost

    def finish_abandoned(self, outcome: CallOutcome) -> None:
        self.entry.client_disconnected = True
        self.finish(outcome)

    def finish(self, outcome: CallOutcome) -> None:
        """Close the entry, before the client can see the end, so that it never finds the call still running."""
        self.journal.finish(self.entry, outcome)

    def record_served(self, usage: Usage, output_tokens: int, reports_usage: bool) -> None:
        """Charge what is sent: the prompt with the first byte, the output as it is sent."""
        self.entry.input_tokens = usage.input_tokens
        self.entry.cached_tokens = usage.cached_tokens
        self.entry.cache_write_tokens = usage.cache_write_tokens
        self.entry.reasoning_tokens = min(usage.reasoning_tokens, output_tokens)
        self.entry.output_tokens = output_tokens
        self.entry.usage_reported = self.entry.usage_reported or reports_usage


async def send_response(response: SimulatedResponse, fault: Fault, controls: Controls, writer: ResponseWriter) -> None:
    """Send the response, or the part that the fault allows, and close its entry in the journal."""
    match response:
        case CompleteResponse():
            await _send_complete(response, fault, controls, writer)
        case StreamedResponse():
            await _StreamSender(response, controls, writer).run(fault)


async def _send_complete(response: CompleteResponse, fault: Fault, controls: Controls, writer: ResponseWriter) -> None:
    if not await writer.pause(_delay_seconds(response, controls)):
        return
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    half = 0
    if isinstance(fault, BrokenResponse):
        half = 0 if fault.after == 0 else len(response.body) // 2
        if half:
            await writer.start(response.status, headers)
            await writer.write(response.body[:half], more=True)
        if not await _inject_fault(fault, controls, writer):
            return
    if response.usage is not None:
        writer.record_served(response.usage, response.usage.output_tokens, response.reports_usage)
    outcome = CallOutcome.OK if response.status < 400 else CallOutcome.ERROR
    if controls.slow_loris:
        await _send_slowly(response.status, headers, response.body, outcome, controls, writer)
        return
    if not half:
        await writer.start(response.status, headers)
    writer.finish(outcome)
    await writer.write(response.body[half:])


class _StreamSender:
    """One stream being written. Frames wait in a batch until there is a reason to send them."""

    def __init__(self, response: StreamedResponse, controls: Controls, writer: ResponseWriter) -> None:
        self._response = response
        self._controls = controls
        self._writer = writer
        self._batch: list[Frame] = []
        self._deltas = 0
        self._is_open = False
        self._now = asyncio.get_running_loop().time
        self._due = self._now() + controls.ttft_ms / 1000

    async def run(self, fault: Fault) -> None:
        frames = self._response.frames
        if self._controls.slow_loris:
            await self._send_slowly(frames)
            return
        if self._controls.early_headers:
            await self._open()
        stop = _stop_index(frames, fault)
        if not await self._send_at_pace(frames[:stop]):
            return
        if isinstance(fault, BrokenResponse):
            await self._flush()
            if fault.kind == BreakKind.ERROR:
                await self._send_error_frame()
                return
            if not await _inject_fault(fault, self._controls, self._writer):
                return
            self._due = self._now()
            if not await self._send_at_pace(frames[stop:]):
                return
        await self._finish()

    async def _send_at_pace(self, frames: list[Frame]) -> bool:
        """Send the frames at their pace. Return False if the client disconnected meanwhile."""
        gap = self._controls.inter_token_ms / 1000
        for frame in frames:
            if frame.is_delta:
                # The pace is counted from the start, so a late wake-up does not delay all that follows.
                self._due += gap if self._deltas else 0
                self._deltas += 1
            seconds = self._due - self._now()
            if seconds > 0:
                await self._flush()
                if not await self._writer.pause(seconds):
                    return False
            self._batch.append(frame)
        return True

    async def _finish(self) -> None:
        data = b"".join(frame.data for frame in self._batch)
        if self._controls.split_frames:
            await self._flush()
            data = b""
        self._take_batch()
        await self._open()
        if self._writer.connection.is_lost:
            self._writer.finish_abandoned(CallOutcome.DISCONNECTED)
        else:
            self._writer.finish(CallOutcome.OK)
        await self._writer.write(data)

    async def _send_error_frame(self) -> None:
        await self._open()
        self._writer.finish(CallOutcome.ERROR_FRAME)
        await self._writer.write(self._response.error)

    async def _flush(self) -> None:
        if not self._batch:
            return
        await self._open()
        batch = self._take_batch()
        if self._controls.split_frames:
            for frame in batch:
                await self._send_split(frame.data)
        else:
            await self._writer.write(b"".join(frame.data for frame in batch), more=True)

    def _take_batch(self) -> list[Frame]:
        """Empty the batch, and record it as sent."""
        batch, self._batch = self._batch, []
        if batch:
            reports_usage = any(frame.reports_usage for frame in batch)
            self._writer.record_served(self._response.usage, batch[-1].served_tokens, reports_usage)
        return batch

    async def _send_split(self, data: bytes) -> None:
        middle = _split_point(data)
        for part in (data[:middle], data[middle:]):
            await self._writer.write(part, more=True)
            await self._writer.connection.pause(SEGMENT_GAP_SECONDS)

    async def _send_slowly(self, frames: list[Frame]) -> None:
        if not await self._writer.pause(self._controls.ttft_ms / 1000):
            return
        self._batch = frames
        body = b"".join(frame.data for frame in self._take_batch())
        await _send_slowly(200, self._response.headers, body, CallOutcome.OK, self._controls, self._writer)

    async def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._writer.start(200, self._response.headers)


async def _inject_fault(fault: BrokenResponse, controls: Controls, writer: ResponseWriter) -> bool:
    """Apply the fault. Return True if the answer continues afterwards, as it may after a stall."""
    await writer.connection.flush()
    if writer.connection.is_lost:
        writer.finish_abandoned(CallOutcome.DISCONNECTED)
        return False
    match fault.kind:
        case BreakKind.CUT:
            writer.finish(CallOutcome.CUT)
            await writer.connection.close()
        case BreakKind.RST:
            writer.finish(CallOutcome.RST)
            await writer.connection.reset()
        case _:
            silence = None if controls.stall_ms is None else controls.stall_ms / 1000
            if await writer.connection.pause(silence):
                return True
            writer.finish_abandoned(CallOutcome.STALLED)
    return False


async def _send_slowly(
    status: int, headers: Headers, body: bytes, outcome: CallOutcome, controls: Controls, writer: ResponseWriter
) -> None:
    """Write the response's headers byte by byte, bypassing ASGI, which would write them in one piece."""
    writer.entry.status = status
    for byte in _response_head(status, headers):
        writer.connection.write(bytes((byte,)))
        if not await writer.pause(controls.slow_loris / 1000):
            return
    writer.finish(outcome)
    writer.connection.write(body)
    await writer.connection.close()


def _response_head(status: int, headers: Headers) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    lines = [
        f"HTTP/1.1 {status} {phrase}".encode(),
        *(name + b": " + value for name, value in headers),
        b"connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _delay_seconds(response: CompleteResponse, controls: Controls) -> float:
    """A complete answer takes as long as its stream would."""
    deltas = controls.deltas or (response.usage.output_tokens if response.usage else 0)
    return (controls.ttft_ms + controls.inter_token_ms * max(0, deltas - 1)) / 1000


def _stop_index(frames: list[Frame], fault: Fault) -> int:
    """Return how many frames are sent before the fault; at most all of them."""
    if not isinstance(fault, BrokenResponse):
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

"""The load generator, a process of its own: python -m tests.bench.gateways.load < load.json > outcome.json."""

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.gateways.alarm import Alarm
from tests.bench.gateways.task import DIGITS, Load, Outcome, body_around, due_moments, head_of
from tests.bench.gateways.wire import Pool, Question

#: Requests without an answer this long after the last one was due have failed.
LATE_SECONDS = 10.0
#: The measurement stops after this many failures.
MOST_FAILURES = 200
OPENING_AT_ONCE = 32


@dataclass(slots=True)
class Tally:
    """Results so far: requests that were due, or answered, in the measured window."""

    opens_at: float
    closes_at: float
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    events: int = 0
    answered: int = 0
    failures: int = 0
    complaint: str = ""
    cache_hits: int = 0
    unanswered: int = 0

    def came(self, events: int) -> None:
        if self.opens_at <= time.monotonic() < self.closes_at:
            self.events += events

    def ended(self, question: Question, moment: float) -> None:
        """Count it if it lies in the window."""
        self.unanswered -= 1
        if question.failure:
            self.failures += 1
            self.complaint = self.complaint or question.failure
            return
        self.answered += 1
        if self.opens_at <= moment < self.closes_at:
            self.latencies.append(question.ended_at - question.due)
            self.cache_hits += question.is_hit
            if question.stream:
                self.first_tokens.append(question.first_token_at - question.due)


async def run(load: Load) -> Outcome:
    """Open the idle streams and apply the load."""
    pool, held = Pool(*_address(load)), Held(load)
    await held.open()
    await pool.fill(load.connections)
    opens_at = time.monotonic() + load.warm_seconds
    tally = Tally(opens_at, opens_at + load.seconds)
    await (_closed(load, pool, tally) if load.rate is None else _open(load, pool, tally))
    outcome = Outcome(
        seconds=load.seconds,
        latencies=tally.latencies,
        first_tokens=tally.first_tokens,
        events=tally.events,
        answered=tally.answered,
        failures=tally.failures + tally.unanswered,
        complaint=tally.complaint or ("no answer in time" if tally.unanswered else ""),
        cache_hits=tally.cache_hits,
        held=held.opened,
        held_after=held.opened - held.ended_after_opening,
    )
    pool.close()
    held.close()
    return outcome


async def _closed(load: Load, pool: Pool, tally: Tally) -> None:
    """Closed loop: each connection sends its next request as soon as it has an answer."""
    requests, over = requests_of(load), asyncio.Event()

    def ask() -> None:
        tally.unanswered += 1
        pool.ask(Question(next(requests), time.monotonic(), load.stream, ended, tally.came))

    def ended(question: Question) -> None:
        tally.ended(question, question.ended_at)
        if question.ended_at < tally.closes_at and tally.failures < MOST_FAILURES:
            ask()
        elif not tally.unanswered:
            over.set()

    for _ in range(load.connections):
        ask()
    await _within(over, tally.closes_at + LATE_SECONDS)


async def _open(load: Load, pool: Pool, tally: Tally) -> None:
    """Open loop: send at times fixed in advance, independent of earlier requests."""
    requests, over, alarm = requests_of(load), asyncio.Event(), Alarm()
    loop = asyncio.get_running_loop()
    began = tally.opens_at - load.warm_seconds
    offsets = due_moments(load.rate or 0, load.warm_seconds + load.seconds, at_random=load.random)
    moments = iter([*(began + offset for offset in offsets), float("inf")])
    due = next(moments)

    def ended(question: Question) -> None:
        tally.ended(question, question.due)
        if due == float("inf") and not tally.unanswered:
            over.set()

    def ring() -> None:
        nonlocal due
        while due <= time.monotonic() and tally.failures < MOST_FAILURES:
            question = Question(next(requests), due, load.stream, ended, tally.came)
            tally.unanswered += 1
            due = next(moments)
            pool.ask(question)
        if due < float("inf"):
            alarm.set(due)
        else:
            loop.remove_reader(alarm.descriptor)

    loop.add_reader(alarm.descriptor, ring)
    alarm.set(due)
    await _within(over, tally.closes_at + LATE_SECONDS)
    loop.remove_reader(alarm.descriptor)
    alarm.close()


class Held:
    """Idle streams: opened and kept open."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._pool = Pool(*_address(load), most=load.held)
        self._is_closing = False
        self.opened = self.ended_after_opening = 0

    async def open(self) -> None:
        """Open them, a few concurrently; those that do not start in time are not kept."""
        left = iter(range(self._load.held))
        requests = requests_of(
            msgspec.structs.replace(self._load, model=self._load.held_model, stream=True, body_bytes=1024)
        )
        deadline = time.monotonic() + self._load.held_patience_seconds
        opening = min(OPENING_AT_ONCE, self._load.held)
        await asyncio.gather(*(self._open_some(left, requests, deadline) for _ in range(opening)))

    def close(self) -> None:
        self._is_closing = True
        self._pool.close()

    async def _open_some(self, left: Iterator[int], requests: Iterator[bytes], deadline: float) -> None:
        for _ in left:
            begun = asyncio.Event()
            question = self._question(next(requests), begun)
            self._pool.ask(question)
            if not await _within(begun, deadline) or question.failure:
                return
            self.opened += 1

    def _question(self, request: bytes, begun: asyncio.Event) -> Question:
        def came(_: int) -> None:
            begun.set()

        def ended(_: Question) -> None:
            self.ended_after_opening += begun.is_set() and not self._is_closing
            begun.set()

        return Question(request, time.monotonic(), True, ended, came)


def requests_of(load: Load) -> Iterator[bytes]:
    """Yield requests, each with a new body; or always the same one."""
    before, after = body_around(load.model, load.stream, load.body_bytes)
    before = head_of(load) + before
    first = time.time_ns()
    for number in itertools.repeat(first) if load.same_body else itertools.count(first):
        yield before + b"%0*d" % (DIGITS, number) + after


def _address(load: Load) -> tuple[str, int]:
    parts = urlsplit(load.url)
    return str(parts.hostname), parts.port or 80


async def _within(event: asyncio.Event, deadline: float) -> bool:
    """Wait for it until a deadline; False if it did not come."""
    try:
        async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
            await event.wait()
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    # A garbage collection would be a stall that no system caused.
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Load)))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))

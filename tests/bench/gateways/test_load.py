"""The load generator against servers that behave in known ways."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import msgspec
import pytest

from tests.bench.gateways.load import run
from tests.bench.gateways.task import Load, Outcome
from tests.bench.gateways.wire import Pool, Question

Answer: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Cache: HIT\r\n\r\n{}"
LOAD = Load(url="", headers={}, model="gpt-4o", connections=2, seconds=0.2, warm_seconds=0.05)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A server that reads whole requests of 8 KiB bodies, and lets `answer` answer each."""

    serving = set[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        # They end, for their clients have left.
        await asyncio.gather(*(task for task in serving if task))


def saying(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


async def outcome_of(answer: Answer, **changes: object) -> Outcome:
    async with serving(answer) as port:
        return await run(msgspec.structs.replace(LOAD, url=f"http://127.0.0.1:{port}/v1", **changes))


async def test_in_a_closed_loop_each_connection_asks_again() -> None:
    outcome = await outcome_of(saying(OK))

    assert outcome.failures == 0
    assert len(outcome.latencies) > 20
    assert outcome.answered >= len(outcome.latencies) == outcome.cache_hits


async def test_in_an_open_loop_as_many_are_asked_as_were_due() -> None:
    outcome = await outcome_of(saying(OK), rate=100.0)

    assert (outcome.answered, len(outcome.latencies), outcome.failures) == (25, 20, 0)


async def test_events_are_counted_however_they_are_cut() -> None:
    body = b'id: 1\ndata: {"content":""}\n\ndata: {"content":"a"}\n\n: still here\n\ndata: [DONE]\n\n'

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in body:
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    outcome = await outcome_of(answer, stream=True, rate=20.0, warm_seconds=0.0)

    assert (outcome.events, len(outcome.first_tokens), outcome.failures) == (12, 4, 0)
    assert all(first <= last for first, last in zip(outcome.first_tokens, outcome.latencies, strict=True))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy", "503: busy"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\ndata: {...}\n\n", "without [DONE]"),
        (b"no HTTP\r\n\r\n", "no HTTP"),
    ],
)
async def test_what_is_no_answer_is_a_failure(data: bytes, complaint: str) -> None:
    outcome = await outcome_of(saying(data), stream=True, rate=20.0)

    assert (outcome.failures, outcome.latencies) == (5, [])
    assert complaint in outcome.complaint


async def test_streams_are_held_open_and_those_that_are_cut_are_missed() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    held: list[asyncio.StreamWriter] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        if len(held) == 3:
            held[0].close()
            writer.write(OK)
            return
        held.append(writer)
        writer.write(head + b"9\r\n\ndata: {}\r\n")

    outcome = await outcome_of(answer, rate=20.0, held=3, held_model="gpt-4o")

    assert (outcome.held, outcome.held_after, outcome.failures) == (3, 2, 0)


async def test_who_waits_for_a_connection_waits_since_it_was_due() -> None:
    """A server that stalls cannot hide the requests that were due meanwhile."""
    release, both, ended = asyncio.Event(), asyncio.Event(), list[Question]()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(OK)

    def note(question: Question) -> None:
        ended.append(question)
        if len(ended) == 2:
            both.set()

    async with serving(answer) as port:
        pool = Pool("127.0.0.1", port, most=1)
        due = time.monotonic()
        for _ in range(2):
            pool.ask(Question(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", due, False, note, lambda _: None))
        asyncio.get_running_loop().call_later(0.05, release.set)
        await both.wait()
        pool.close()

    assert [question.failure for question in ended] == ["", ""]
    assert all(question.ended_at - question.due >= 0.05 for question in ended)

"""Processes that ask for the same at once. Started anew each, as servers are."""

import asyncio
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from redis.asyncio import Redis

from tenants.rate_limiting.admission import admit
from tenants.rate_limiting.types import AdmissionRequest, Admitted

PROCESSES, CLIENTS = 4, 50


def race(url: str, asks_for: Callable[[int, int], list[AdmissionRequest]], rounds: Sequence[int]) -> list[int]:
    """Return of each round how many were let in, over all processes; each asks what `asks_for` gives it."""
    context = get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    ends = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=_run, args=(url, asks_for, number, rounds, barrier, sender))
        for number, (_, sender) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    for _, sender in ends:
        # So that nobody waits for a process that failed.
        sender.close()
    counts: list[list[int]] = [receiver.recv() for receiver, _ in ends]
    for process in processes:
        process.join()
    return [sum(of_round) for of_round in zip(*counts, strict=True)]


def _run(
    url: str,
    asks_for: Callable[[int, int], list[AdmissionRequest]],
    number: int,
    rounds: Sequence[int],
    barrier: Barrier,
    sender: Connection,
) -> None:
    counts = []
    with asyncio.Runner() as runner:
        # A client of its own: on a busy machine it may take longer than a visitor would wait.
        server = Redis.from_url(url, socket_timeout=20, socket_connect_timeout=20)
        for each in rounds:
            asks = asks_for(each, number)
            barrier.wait(60)
            counts.append(runner.run(_ask_all(server, asks)))
        runner.run(server.aclose())
    sender.send(counts)


async def _ask_all(server: Redis, asks: list[AdmissionRequest]) -> int:
    """Let so many clients ask until nothing is left to ask; return how often one was let in."""
    waiting = iter(asks)

    async def client() -> int:
        return sum([isinstance(await admit(server, each), Admitted) for each in waiting])

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))

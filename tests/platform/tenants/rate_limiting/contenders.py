"""Processes that compete for the same limit, each freshly spawned, as servers are."""

import asyncio
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from redis.asyncio import Redis

from tenants.rate_limiting.types import AdmissionRequest, Admitted
from tests.platform.tenants.rate_limiting.requests import admit

PROCESSES, CLIENTS = 4, 50


def race(url: str, requests_of: Callable[[int, int], list[AdmissionRequest]], rounds: Sequence[int]) -> list[int]:
    """Return how many requests each round admitted, over all processes; each sends its `requests_of`."""
    context = get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    ends = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=_run, args=(url, requests_of, number, rounds, barrier, sender))
        for number, (_, sender) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    for _, sender in ends:
        # So that `recv` fails, instead of waiting, if a process failed.
        sender.close()
    counts: list[list[int]] = [receiver.recv() for receiver, _ in ends]
    for process in processes:
        process.join()
    return [sum(of_round) for of_round in zip(*counts, strict=True)]


def _run(
    url: str,
    requests_of: Callable[[int, int], list[AdmissionRequest]],
    number: int,
    rounds: Sequence[int],
    barrier: Barrier,
    sender: Connection,
) -> None:
    counts = []
    with asyncio.Runner() as runner:
        # A client with long timeouts: on a busy machine a reply may take longer than a visitor would wait.
        server = Redis.from_url(url, socket_timeout=20, socket_connect_timeout=20)
        for each in rounds:
            pending = requests_of(each, number)
            barrier.wait(60)
            counts.append(runner.run(_admit_all(server, pending)))
        runner.run(server.aclose())
    sender.send(counts)


async def _admit_all(server: Redis, pending: list[AdmissionRequest]) -> int:
    """Let concurrent clients send all pending requests; return how many were admitted."""
    queue = iter(pending)

    async def client() -> int:
        return sum([isinstance(await admit(server, each), Admitted) for each in queue])

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))

"""Jobs posted as a site would post them: over HTTP, with an API key, over a few connections at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from devstack.card import Card

CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Posted:
    """How long each post took, and all of them together."""

    latencies: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def post_jobs(card: Card, model: str, count: int, *, gap_seconds: float = 0, connections: int = CONNECTIONS) -> Posted:
    """Post this many jobs; with a gap, each connection pauses after each job."""
    return asyncio.run(_post_jobs(card, model, count, gap_seconds, connections))


async def _post_jobs(card: Card, model: str, count: int, gap_seconds: float, connections: int) -> Posted:
    body = {"kind": "chat", "body": {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}}
    left, latencies = iter(range(count)), []

    async def post(http: aiohttp.ClientSession) -> None:
        for _ in left:
            began = time.perf_counter()
            async with http.post(f"{card.base_url}/v1/jobs", json=body) as answer:
                if answer.status != 202:
                    raise RuntimeError(f"{answer.status}: {await answer.text()}")
                await answer.read()
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(gap_seconds)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {card.api_key}"}) as http:
        began = time.perf_counter()
        await asyncio.gather(*(post(http) for _ in range(connections)))
        return Posted(latencies, time.perf_counter() - began)

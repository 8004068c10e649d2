"""A batch of ten thousand, from its submission to its `batch.completed` webhook, on one web and one worker process."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from devstack.card import Card
from tests.bench.books import Books, opened
from tests.bench.desk import running_desk
from tests.bench.memory import memory_of, watched
from tests.bench.progress import tell
from tests.bench.report import Goal, Report, Row

SUITE = "batch"
MEMBERS = 10_000
SLOTS = 500
MODEL = "bench-fast"
TEXT = (
    "Rewrite this description for the autumn catalogue, in at most forty words. Number {number}: a kettle of brushed"
    " steel, 1.7 liters, with a wooden handle; it whistles, and it keeps its heat for an hour."
)
NOTES = (
    "Each member has a prompt of its own. All are inline in the request: no file is uploaded.",
    "Post to event ends when `batch.completed` is committed, with every member's end and account.",
)


@dataclass(frozen=True, slots=True)
class Measured:
    accept_seconds: float
    completed_seconds: float
    told_seconds: float
    jobs_per_second: float
    web_mb: float


def run() -> Report:
    with running_desk() as desk, opened(desk.database_url) as books:
        books.add_route(MODEL, "gpt-4o-mini")
        with desk.worker(JOB_SLOTS=str(SLOTS)), watched(desk.web_pid) as peak:
            books.first_lease_at()
            tell(f"posting a batch of {MEMBERS:,}")
            posted_at = time.time()
            batch_id = asyncio.run(_post(desk.card, [_request(number) for number in range(MEMBERS)]))
            accept_seconds = time.time() - posted_at
            peak.see(memory_of(desk.web_pid))
            tell("waiting for its end")
            measured = _measure(books, posted_at, accept_seconds, peak.memory.resident)
            if _counts(desk.card, batch_id) != {"total": MEMBERS, "completed": MEMBERS, "failed": 0}:
                raise RuntimeError("Not all members of the batch succeeded.")
        books.check_all_paid(MODEL, MEMBERS)
    return _report(measured)


def _measure(books: Books, posted_at: float, accept_seconds: float, web_mb: float) -> Measured:
    completed = "EXISTS (SELECT FROM webhooks_event WHERE type = 'batch.completed')"
    completed_at = books.until(completed, patience_seconds=400)
    told_at = books.until("EXISTS (SELECT FROM webhooks_delivery WHERE state = 'delivered')")
    (begun_at,) = books.ask("SELECT extract(epoch FROM in_progress_at) FROM jobs_batch")
    return Measured(
        accept_seconds,
        completed_at - posted_at,
        told_at - posted_at,
        MEMBERS / (completed_at - float(begun_at)),
        web_mb,
    )


def _request(number: int) -> dict[str, Any]:
    message = {"role": "user", "content": TEXT.format(number=number)}
    return {"custom_id": f"product-{number}", "body": {"model": MODEL, "messages": [message]}}


async def _post(card: Card, requests: Sequence[dict[str, Any]]) -> str:
    body = {"endpoint": "/v1/chat/completions", "requests": requests}
    async with _client(card) as http, http.post(f"{card.base_url}/v1/batches", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {(await answer.text())[:500]}")
        return str((await answer.json())["id"])


def _counts(card: Card, batch_id: str) -> dict[str, int]:
    """Return the counts as OpenAI's SDKs see them."""

    async def ask() -> dict[str, int]:
        async with _client(card) as http, http.get(f"{card.base_url}/v1/batches/{batch_id}") as answer:
            counts = (await answer.json())["request_counts"]
            return {name: counts[name] for name in ("total", "completed", "failed")}

    return asyncio.run(ask())


def _client(card: Card) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {card.api_key}"})


def _report(measured: Measured) -> Report:
    rate = measured.jobs_per_second
    rows = [
        Row(f"{MEMBERS:,} members: accepted after", measured.accept_seconds, "s"),
        Row(f"{MEMBERS:,} members: post to event", measured.completed_seconds, "s"),
        Row(f"{MEMBERS:,} members: post to webhook taken", measured.told_seconds, "s"),
        Row("end to end, upstream at once", rate, "jobs/s"),
        Row("web process while it accepts: memory", measured.web_mb, "MB resident"),
    ]
    goals = [
        Goal("accept", "less than 3 s", measured.accept_seconds, measured.accept_seconds < 3),
        Goal("end to end", "at least 300 jobs/s, durable", rate, rate >= 300),
    ]
    return Report(SUITE, rows, goals, notes=NOTES)

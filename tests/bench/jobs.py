"""Jobs from post to webhook: an upstream that answers at once, and one that takes three seconds."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import psycopg

from core.ids import new_uuid
from nightdesk.local.card import Card
from tests.bench.desk import running_desk
from tests.bench.report import Goal, Report, Row, percentile
from tests.polling import wait_until

JOBS = 2000
CALM_JOBS = 200
CALM_GAP_SECONDS = 0.02
SLOW_CALLS = 500
SLOW_SECONDS = 3.0
CONNECTIONS = 16
SLOTS = 500
PATIENCE_SECONDS = 300


async def run() -> Report:
    """Measure submit, end to end, webhook delay, and many slow calls in flight."""
    async with running_desk({"JOB_SLOTS": str(SLOTS)}) as card:
        _add_slow_route(card)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {card.api_key}"}) as http:
            await _submit(http, card, "nightdesk-demo", 50)
            await _until_all_ended(card)
            calm = await _webhook_delays(http, card)
            latencies, submit_seconds, all_seconds = await _flood(http, card)
            slow_seconds = await _slow(http, card)
    return _report(calm, latencies, submit_seconds, all_seconds, slow_seconds)


def _report(
    calm: Sequence[float], latencies: Sequence[float], submit_seconds: float, all_seconds: float, slow_seconds: float
) -> Report:
    webhook_p95 = percentile(calm, 0.95)
    share = SLOW_SECONDS / slow_seconds
    rows = [
        Row("submit through the API", JOBS / submit_seconds, "jobs/s"),
        Row("submit, p50", percentile(latencies, 0.5) * 1000, "ms"),
        Row("submit, p99", percentile(latencies, 0.99) * 1000, "ms"),
        Row("post to done, upstream at once", JOBS / all_seconds, "jobs/s"),
        Row("webhook sent after the job's end, p50", percentile(calm, 0.5) * 1000, "ms"),
        Row("webhook sent after the job's end, p95", webhook_p95 * 1000, "ms"),
        Row(f"{SLOW_CALLS} calls of {SLOW_SECONDS:g} s, all done after", slow_seconds, "s"),
    ]
    goals = [
        Goal("webhook p95", "sent less than 500 ms after the job's end", webhook_p95 * 1000, webhook_p95 < 0.5),
        Goal("slow calls in flight", "at least 0.9 of the ideal rate, one worker process", share, share >= 0.9),
    ]
    return Report("jobs", rows, goals)


async def _flood(http: aiohttp.ClientSession, card: Card) -> tuple[list[float], float, float]:
    began = time.monotonic()
    latencies = await _submit(http, card, "nightdesk-demo", JOBS)
    submitted = time.monotonic()
    await _until_all_ended(card)
    return latencies, submitted - began, time.monotonic() - began


async def _slow(http: aiohttp.ClientSession, card: Card) -> float:
    """Return how long all slow calls took from the first one's start to the last one's end."""
    await _submit(http, card, "bench-slow", SLOW_CALLS)
    await _until_all_ended(card)
    (seconds,) = _ask(
        card,
        "SELECT extract(epoch FROM max(started_at + duration_ms * interval '1 ms') - min(started_at))"
        " FROM metering_usageevent WHERE model = 'bench-slow'",
    )
    return float(seconds)


async def _webhook_delays(http: aiohttp.ClientSession, card: Card) -> list[float]:
    """Submit at a gentle pace; return the seconds from each job's end to its webhook's sending."""
    for _ in range(CALM_JOBS):
        await _submit(http, card, "nightdesk-demo", 1)
        await asyncio.sleep(CALM_GAP_SECONDS)
    await _until_all_ended(card)
    await _until_all_delivered(card)
    with psycopg.connect(card.database_url or "") as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM log.started_at - job.finished_at) FROM webhooks_deliveryattempt log"
            " JOIN webhooks_delivery delivery ON delivery.id = log.delivery_id"
            " JOIN webhooks_event event ON event.id = delivery.event_id"
            " JOIN jobs_job job ON job.id = event.subject_id WHERE log.number = 1"
            " ORDER BY job.id DESC LIMIT %s",
            [CALM_JOBS],
        )
        return [float(row[0]) for row in rows]


async def _submit(http: aiohttp.ClientSession, card: Card, model: str, count: int) -> list[float]:
    """Post so many jobs over a few connections; return each post's seconds."""
    body = {"kind": "chat", "body": {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}}
    left, latencies = iter(range(count)), []

    async def post() -> None:
        for _ in left:
            began = time.monotonic()
            async with http.post(f"{card.base_url}/v1/jobs", json=body) as answer:
                if answer.status != 202:
                    raise RuntimeError(f"{answer.status}: {await answer.text()}")
            latencies.append(time.monotonic() - began)

    await asyncio.gather(*(post() for _ in range(min(CONNECTIONS, count))))
    return latencies


async def _until_all_ended(card: Card) -> None:
    await _until_none(card, "SELECT count(*) FROM jobs_job WHERE finished_at IS NULL")


async def _until_all_delivered(card: Card) -> None:
    await _until_none(card, "SELECT count(*) FROM webhooks_delivery WHERE state = 'pending'")


async def _until_none(card: Card, count: str) -> None:
    await wait_until(lambda: _ask(card, count) == (0,), seconds=PATIENCE_SECONDS, every=0.05)


def _ask(card: Card, statement: str) -> tuple[Any, ...]:
    with psycopg.connect(card.database_url or "") as connection:
        return connection.execute(statement.encode()).fetchone() or ()


def _add_slow_route(card: Card) -> None:
    """A model whose answer begins after three seconds."""
    route_id = new_uuid()
    with psycopg.connect(card.database_url or "") as connection:
        connection.execute(
            "INSERT INTO inference_route (id, model, is_active) VALUES (%s, 'bench-slow', true)", [route_id]
        )
        connection.execute(
            "INSERT INTO inference_target (route_id, provider_id, upstream_model, position, weight)"
            " SELECT %s, id, %s, 1, 1 FROM inference_provideraccount WHERE name = 'sim-openai'",
            [route_id, f"gpt-4o-mini@ttft_ms={SLOW_SECONDS * 1000:.0f}"],
        )

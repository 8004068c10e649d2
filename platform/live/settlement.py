"""Settles a live request: releases what the admission reserved, records usage, and stores the answer in the cache.

Normally one round trip to Redis. If Redis is unavailable, usage goes to Postgres, and the release is retried for a
minute; after that the leases expire.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

import structlog

from core import clock, metrics
from core.database_threads import DATABASE_UNAVAILABLE
from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import USAGE_RECORDS_KEY
from inference.calls import CallClosed, CallOutcome, CallTrace
from inference.usage_records import UsageAttribution, to_usage_record
from live.admit import AdmittedRequest
from live.request import LiveRequest
from live.runtime import LiveRuntime
from metering import usage_records
from metering.buffer import encode_usage_record
from metering.models import UsageOutcome
from metering.usage_records import CACHE_PROVIDER, UsageRecord
from tenants.rate_limiting.admission import settle
from tenants.rate_limiting.types import CacheEntry, Settlement, to_settlement

log = structlog.get_logger(__name__)

#: The pause before each retry of a settlement that Redis did not take.
SETTLE_RETRY_DELAYS_SECONDS = (0.5, 1, 2, 4, 8, 15, 30)

#: Whether the idempotency key stays bound to this answer. A failed request drops it, so that it may be retried.
IdempotencyOutcome: TypeAlias = Literal["keep", "drop"]


def spawn_settlement(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    trace: CallTrace,
    outcome: IdempotencyOutcome,
    cached: tuple[CacheEntry, ...] = (),
) -> None:
    """Settle a request in a background task, which outlives the request and its cancellation."""
    runtime.spawn(_settle_request(runtime, admitted, trace, outcome, cached))


async def _settle_request(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    trace: CallTrace,
    outcome: IdempotencyOutcome,
    cached: tuple[CacheEntry, ...],
) -> None:
    closed = [_usage_record(admitted.attribution, call) for call in trace.closed]
    for call in trace.closed:
        metrics.upstream_calls.labels(call.opened.target.provider.name, call.outcome.value).inc()
    settlement = to_settlement(
        admitted.admission,
        admitted.reservation,
        used_tokens=sum(call.usage.total_tokens for call in trace.closed),
        usage_records=[encode_usage_record(usage_record) for usage_record in closed],
        idempotency_key_action=outcome,
        cache=cached,
    )
    is_recorded = False
    try:
        await settle(runtime.redis, settlement)
        is_recorded = True
    except RedisUnavailable as error:
        log.error("settle_redis_unavailable", error=str(error), calls=len(closed))
        is_recorded = await _write_to_postgres(runtime, closed)
        runtime.spawn(_retry_settlement(runtime, settlement))
    finally:
        runtime.leases.release(admitted.admission.request_id, is_recorded=is_recorded)


def _usage_record(attribution: UsageAttribution, call: CallClosed) -> UsageRecord:
    # A call that the caller canceled was worked on for the caller until then.
    return to_usage_record(attribution, call, billable=call.outcome in (CallOutcome.OK, CallOutcome.CANCELED))


async def _write_to_postgres(runtime: LiveRuntime, closed: Sequence[UsageRecord]) -> bool:
    try:
        await runtime.threads.run(usage_records.write, closed)
    except DATABASE_UNAVAILABLE as error:
        calls = [usage_record.dedupe_key for usage_record in closed]
        log.critical("usage_records_dropped", calls=calls, error=str(error)[:200])
        return False
    return True


async def _retry_settlement(runtime: LiveRuntime, settlement: Settlement) -> None:
    """Release the reservation as soon as Redis is back. After the last retry it is held until its lease expires."""
    for seconds in SETTLE_RETRY_DELAYS_SECONDS:
        await asyncio.sleep(seconds)
        with suppress(RedisUnavailable):
            await settle(runtime.redis, settlement)
            return


async def record_cache_hit(runtime: LiveRuntime, live_request: LiveRequest) -> None:
    """Record usage for an answer from the cache: no tokens, no cost, and the cache as its provider."""
    usage_record = UsageRecord(
        dedupe_key=f"{live_request.request_id}:1",
        site_id=live_request.caller.identity.site.id,
        job_id=None,
        attempt=None,
        call=1,
        request_id=live_request.request_id,
        provider=CACHE_PROVIDER,
        price_list="",
        model=live_request.request.model,
        upstream_model="",
        started_at=clock.now(),
        outcome=UsageOutcome.OK,
        http_status=200,
        duration_ms=0,
    )
    try:
        with translate_redis_errors():
            await runtime.redis.rpush(USAGE_RECORDS_KEY, encode_usage_record(usage_record))
    except RedisUnavailable:
        # It cost nothing, and Redis became unavailable after the hit.
        log.warning("cache_hit_not_recorded", request=live_request.request_id)

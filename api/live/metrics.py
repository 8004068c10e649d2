"""`GET /metrics`: the metrics of this process, for Prometheus."""

import hmac
from collections import Counter
from contextlib import suppress

from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.errors import ResourceNotFound
from api.live.http_handler import LiveHttpResponse
from api.live.http_request import LiveHttpRequest
from api.live.infer import with_error_response
from api.live.respond import ResponseContext, send_body
from core import metrics
from core.redis import RedisUnavailable
from live.runtime import LiveRuntime, live_runtime
from metering import buffer

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")


async def send_metrics(http_request: LiveHttpRequest, response: LiveHttpResponse) -> None:
    """Send the metrics; 404 for callers who may not read them."""
    await with_error_response(ResponseContext(http_request, "metrics"), response, _respond)


async def _respond(context: ResponseContext, response: LiveHttpResponse) -> None:
    if not _is_authorized(context.http_request):
        raise ResourceNotFound("Not found.")
    with suppress(RedisUnavailable):
        await _update_gauges(await live_runtime())
    await send_body(context, response, generate_latest(), content_type=CONTENT_TYPE_LATEST)


async def _update_gauges(runtime: LiveRuntime) -> None:
    """Update the gauges of what all processes share. Without Redis they keep their last values."""
    backlog = await buffer.read_backlog_async(runtime.redis)
    metrics.usage_records_pending.set(backlog.pending)
    metrics.usage_records_dead_lettered.set(backlog.dead_letters)
    breaker_counts = Counter((status.provider, status.state.value) for status in await runtime.breakers.statuses())
    metrics.circuit_breakers.clear()
    for labels, keys in breaker_counts.items():
        metrics.circuit_breakers.labels(*labels).set(keys)


def _is_authorized(http_request: LiveHttpRequest) -> bool:
    """Whether a request has METRICS_TOKEN; if that is not set, whether it comes from this machine without a proxy."""
    if settings.METRICS_TOKEN:
        presented = http_request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(presented.encode(), settings.METRICS_TOKEN.encode())
    return http_request.address in LOOPBACK_ADDRESSES and "x-forwarded-for" not in http_request.headers

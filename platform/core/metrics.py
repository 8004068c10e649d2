"""Prometheus metrics of this process: names, labels and help in one place.

Labels have few, bounded values: never a site, a model name from a request, or a text of a person.
"""

from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

#: From a cache hit to a long wait for a provider.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

live_requests = Counter("nightdesk_live_requests", "Responses of the live path", ["route", "status"])
live_duration_seconds = Histogram(
    "nightdesk_live_request_duration_seconds",
    "Duration of a live request, to the end of its response",
    ["route"],
    buckets=DURATION_BUCKETS,
)
overhead_seconds = Histogram(
    "nightdesk_overhead_seconds",
    "Overhead added by the gateway before the response began",
    ["route"],
    buckets=DURATION_BUCKETS,
)
first_byte_seconds = Histogram(
    "nightdesk_time_to_first_byte_seconds",
    "Time from a live request to the first byte of its response",
    ["route"],
    buckets=DURATION_BUCKETS,
)


@dataclass(frozen=True, slots=True)
class RouteMetrics:
    """The histograms of a route, looked up once: a look-up takes as long as an observation."""

    seconds: Histogram
    overhead_seconds: Histogram
    first_byte_seconds: Histogram


@cache
def route_metrics(route: str) -> RouteMetrics:
    """Return the metrics of a route. There are few routes, all defined by us."""
    return RouteMetrics(
        live_duration_seconds.labels(route), overhead_seconds.labels(route), first_byte_seconds.labels(route)
    )


@cache
def response_counter(route: str, status: int) -> Counter:
    """Return the counter of responses of a route with this status."""
    return live_requests.labels(route, str(status))


streams_open = Gauge("nightdesk_streams_open", "Streams that this process is serving from a provider")
websockets_open = Gauge("nightdesk_websockets_open", "WebSocket connections to this process")
stream_events = Counter("nightdesk_stream_events", "Events written to streams")
rate_limited = Counter("nightdesk_rate_limited", "Live requests rejected by a rate or concurrency limit", ["reason"])
response_cache = Counter("nightdesk_response_cache_requests", "Response cache look-ups", ["result"])
upstream_calls = Counter("nightdesk_upstream_calls", "Calls to providers", ["provider", "outcome"])
redis_unavailable = Counter(
    "nightdesk_redis_unavailable_requests", "Live requests that found Redis unavailable", ["fail_mode"]
)
usage_records_pending = Gauge("nightdesk_usage_records_pending", "Usage records buffered in Redis, not yet in Postgres")
usage_records_dead_lettered = Gauge(
    "nightdesk_usage_records_dead_lettered", "Usage records that could not be written and need an operator"
)
circuit_breakers = Gauge(
    "nightdesk_circuit_breaker_state",
    "Circuit breakers of provider keys with recent failures, by state",
    ["provider", "state"],
)

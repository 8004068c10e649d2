"""What this process counts, for Prometheus: names, labels and help in one place.

Labels are few and bounded: never a site, a model that a caller made up, or anything a person wrote.
"""

from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

#: From an answer out of the cache to a long wait for a provider.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

live_requests = Counter("nightdesk_live_requests", "Answers of the live path", ["route", "status"])
live_seconds = Histogram(
    "nightdesk_live_seconds", "From a live request to the end of its answer", ["route"], buckets=SECONDS
)
overhead_seconds = Histogram(
    "nightdesk_overhead_seconds",
    "What the desk added to a live request, until its answer began",
    ["route"],
    buckets=SECONDS,
)
first_byte_seconds = Histogram(
    "nightdesk_first_byte_seconds", "From a live request to the first byte of its answer", ["route"], buckets=SECONDS
)


@dataclass(frozen=True, slots=True)
class OfRoute:
    """What is observed of each request of a route: found once, for looking it up takes as long as counting."""

    seconds: Histogram
    overhead_seconds: Histogram
    first_byte_seconds: Histogram


@cache
def of_route(route: str) -> OfRoute:
    """Return a route's own. Routes are few, and ours."""
    return OfRoute(live_seconds.labels(route), overhead_seconds.labels(route), first_byte_seconds.labels(route))


@cache
def answers(route: str, status: int) -> Counter:
    """Return what counts the answers of a route with this status."""
    return live_requests.labels(route, str(status))


streams_open = Gauge("nightdesk_streams_open", "Streams that this process is serving from a provider")
sockets_open = Gauge("nightdesk_websockets_open", "WebSocket connections to this process")
stream_events = Counter("nightdesk_stream_events", "Events written to streams")
refused = Counter("nightdesk_refused", "Live requests that were not admitted", ["reason"])
cached = Counter("nightdesk_cache", "Look-ups in the cache of answers", ["result"])
upstream_calls = Counter("nightdesk_upstream_calls", "Calls to providers", ["provider", "outcome"])
without_redis = Counter("nightdesk_without_redis", "Live requests that found no Redis", ["answer"])
accounts_behind = Gauge("nightdesk_accounts_behind", "Accounts of live calls on their way from Redis to Postgres")
accounts_aside = Gauge("nightdesk_accounts_aside", "Accounts that could not be written, and wait for people")
providers_resting = Gauge(
    "nightdesk_provider_resting", "Keys of providers that are left alone", ["provider", "condition"]
)

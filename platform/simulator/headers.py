"""Response headers, as each dialect sends them."""

import math
import time
from datetime import UTC, datetime, timedelta

from simulator.errors import Dialect
from simulator.rate_limits import UNLIMITED, BucketLevel, RateLimitStatus
from simulator.responses import Headers

ORGANIZATION = b"org-simulator"


def response_headers(dialect: Dialect, request_id: str, rate_limit_status: RateLimitStatus, started: float) -> Headers:
    """Return the headers of every response, errors included. `started` is a reading of `time.perf_counter`."""
    own_id = request_id.encode()
    match dialect:
        case Dialect.ANTHROPIC:
            return [
                (b"request-id", own_id),
                (b"anthropic-organization-id", ORGANIZATION),
                *_anthropic_limits(rate_limit_status),
            ]
        case Dialect.AZURE:
            return [
                (b"x-request-id", own_id),
                (b"apim-request-id", own_id),
                (b"x-ms-region", b"Simulator Central"),
                *_azure_limits(rate_limit_status),
            ]
        case _:
            spent = b"%d" % round((time.perf_counter() - started) * 1000)
            return [
                (b"x-request-id", own_id),
                (b"openai-organization", ORGANIZATION),
                (b"openai-processing-ms", spent),
                (b"openai-version", b"2020-10-01"),
                *_openai_limits(rate_limit_status),
            ]


def retry_headers(retry_after: float | None) -> Headers:
    """Return `Retry-After` in whole seconds, plus a header in milliseconds if the seconds are not whole."""
    if retry_after is None:
        return []
    headers = [(b"retry-after", b"%d" % math.ceil(retry_after))]
    if retry_after != int(retry_after):
        headers.append((b"retry-after-ms", b"%d" % round(retry_after * 1000)))
    return headers


def go_duration(seconds: float) -> str:
    """A duration as Go writes it: 12ms, 8.64s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def _limit_headers(prefix: str, kind: str, level: BucketLevel, reset: str) -> Headers:
    return [
        (f"{prefix}-limit-{kind}".encode(), b"%d" % level.limit),
        (f"{prefix}-remaining-{kind}".encode(), b"%d" % level.remaining),
        (f"{prefix}-reset-{kind}".encode(), reset.encode()),
    ]


def _openai_limits(rate_limit_status: RateLimitStatus) -> Headers:
    if rate_limit_status is UNLIMITED:
        return OPENAI_UNLIMITED
    return [
        *_limit_headers(
            "x-ratelimit", "requests", rate_limit_status.requests, go_duration(rate_limit_status.requests.reset)
        ),
        *_limit_headers("x-ratelimit", "tokens", rate_limit_status.tokens, go_duration(rate_limit_status.tokens.reset)),
    ]


def _azure_limits(rate_limit_status: RateLimitStatus) -> Headers:
    return [
        *_limit_headers(
            "x-ratelimit", "requests", rate_limit_status.requests, str(math.ceil(rate_limit_status.requests.reset))
        ),
        *_limit_headers(
            "x-ratelimit", "tokens", rate_limit_status.tokens, str(math.ceil(rate_limit_status.tokens.reset))
        ),
    ]


def _anthropic_limits(rate_limit_status: RateLimitStatus) -> Headers:
    now = datetime.now(UTC)
    headers: Headers = []
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        level = rate_limit_status.requests if kind == "requests" else rate_limit_status.tokens
        reset = (now + timedelta(seconds=level.reset)).strftime("%Y-%m-%dT%H:%M:%SZ")
        prefix = f"anthropic-ratelimit-{kind}"
        headers += [
            (f"{prefix}-limit".encode(), b"%d" % level.limit),
            (f"{prefix}-remaining".encode(), b"%d" % level.remaining),
            (f"{prefix}-reset".encode(), reset.encode()),
        ]
    return headers


OPENAI_UNLIMITED: Headers = [
    *_limit_headers("x-ratelimit", "requests", UNLIMITED.requests, go_duration(UNLIMITED.requests.reset)),
    *_limit_headers("x-ratelimit", "tokens", UNLIMITED.tokens, go_duration(UNLIMITED.tokens.reset)),
]

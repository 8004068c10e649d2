"""Response headers, as each dialect sends them."""

import math
import time
from datetime import UTC, datetime, timedelta

from simulator.errors import Dialect
from simulator.limits import UNLIMITED, Level, Standing
from simulator.replies import Headers

ORGANIZATION = b"org-simulator"


def response_headers(dialect: Dialect, request_id: str, standing: Standing, started: float) -> Headers:
    """The headers of every answer, good or bad. `started` is a reading of `time.perf_counter`."""
    own_id = request_id.encode()
    match dialect:
        case Dialect.ANTHROPIC:
            return [(b"request-id", own_id), (b"anthropic-organization-id", ORGANIZATION), *_anthropic_limits(standing)]
        case Dialect.AZURE:
            return [
                (b"x-request-id", own_id),
                (b"apim-request-id", own_id),
                (b"x-ms-region", b"Simulator Central"),
                *_azure_limits(standing),
            ]
        case _:
            spent = b"%d" % round((time.perf_counter() - started) * 1000)
            return [
                (b"x-request-id", own_id),
                (b"openai-organization", ORGANIZATION),
                (b"openai-processing-ms", spent),
                (b"openai-version", b"2020-10-01"),
                *_openai_limits(standing),
            ]


def retry_headers(retry_after: float | None) -> Headers:
    """Whole seconds for everybody, and milliseconds beside them when the seconds are not whole."""
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


def _limit_headers(prefix: str, kind: str, level: Level, reset: str) -> Headers:
    return [
        (f"{prefix}-limit-{kind}".encode(), b"%d" % level.limit),
        (f"{prefix}-remaining-{kind}".encode(), b"%d" % level.remaining),
        (f"{prefix}-reset-{kind}".encode(), reset.encode()),
    ]


def _openai_limits(standing: Standing) -> Headers:
    if standing is UNLIMITED:
        return OPENAI_UNLIMITED
    return [
        *_limit_headers("x-ratelimit", "requests", standing.requests, go_duration(standing.requests.reset)),
        *_limit_headers("x-ratelimit", "tokens", standing.tokens, go_duration(standing.tokens.reset)),
    ]


def _azure_limits(standing: Standing) -> Headers:
    return [
        *_limit_headers("x-ratelimit", "requests", standing.requests, str(math.ceil(standing.requests.reset))),
        *_limit_headers("x-ratelimit", "tokens", standing.tokens, str(math.ceil(standing.tokens.reset))),
    ]


def _anthropic_limits(standing: Standing) -> Headers:
    now = datetime.now(UTC)
    headers: Headers = []
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        level = standing.requests if kind == "requests" else standing.tokens
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

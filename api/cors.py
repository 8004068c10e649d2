"""CORS on the wire: the response headers that let pages of other origins read a response, and the reply to a preflight.

All of it is pure. Which origin is allowed is a permission (`tenants.access`): these headers keep a browser from reading
a response; the checks there keep Nightdesk from doing what the page requested.
"""

import re
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

CorsHeaders: TypeAlias = list[tuple[bytes, bytes]]

METHODS = ("GET", "POST", "DELETE")
#: The request headers that a page may send: those our API reads, and those the official SDKs send from a browser.
ALLOWED_HEADERS = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
        "anthropic-version",
        "authorization",
        "cache-control",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "openai-organization",
        "openai-project",
        "x-api-key",
        "x-client-request-id",
    }
)
ALLOWED_HEADER_PATTERN = re.compile(r"x-stainless-[a-z0-9-]{1,40}")
MAX_REQUESTED_HEADERS = 40
RATE_LIMIT_FIELDS, RATE_LIMIT_UNITS = ("limit", "remaining", "reset"), ("requests", "tokens")
#: The response headers that a page may read.
EXPOSED_HEADERS = (
    "X-Request-ID",
    "request-id",
    "X-Client-Request-ID",
    "Retry-After",
    "X-Cache",
    "Idempotent-Replayed",
    "Server-Timing",
    "X-Nightdesk-Overhead-Ms",
    *(f"x-ratelimit-{field}-{unit}" for field, unit in product(RATE_LIMIT_FIELDS, RATE_LIMIT_UNITS)),
    *(f"anthropic-ratelimit-{unit}-{field}" for field, unit in product(RATE_LIMIT_FIELDS, RATE_LIMIT_UNITS)),
)
PREFLIGHT_MAX_AGE_SECONDS = 600

_VARY = (b"vary", b"Origin")
_EXPOSED = (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode())


def cors_headers(allowed_origin: str | None) -> CorsHeaders:
    """Return the headers of every response that a page of another origin may request, errors included."""
    if allowed_origin is None:
        return [_VARY]
    return [(b"access-control-allow-origin", allowed_origin.encode("latin-1")), _EXPOSED, _VARY]


@dataclass(frozen=True, slots=True)
class PreflightRequest:
    """What a browser sends before a request that a form could not send."""

    origin: str | None
    method: str | None
    #: The names of the headers as the browser sent them: comma-separated, in lower case.
    headers: str = ""


def preflight_response(preflight: PreflightRequest, *, is_known: bool) -> tuple[int, CorsHeaders]:
    """Return status and headers of the response to a preflight; it has no body.

    A preflight carries no credentials, so the site is not known yet: `is_known` says whether the origin belongs to any
    active site (`tenants.cached_lookups.is_known_origin`). The request that follows is checked against its own site.
    """
    vary = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    if preflight.origin is None or not is_known or preflight.method not in METHODS:
        return 403, [vary]
    return 204, [
        (b"access-control-allow-origin", preflight.origin.encode("latin-1")),
        (b"access-control-allow-methods", ", ".join(METHODS).encode()),
        (b"access-control-allow-headers", ", ".join(_allowed_headers(preflight.headers)).encode()),
        (b"access-control-max-age", b"%d" % PREFLIGHT_MAX_AGE_SECONDS),
        vary,
    ]


def _allowed_headers(requested: str) -> list[str]:
    """Return those of the requested headers that are allowed, each once."""
    names = [name.strip().lower() for name in requested.split(",", MAX_REQUESTED_HEADERS)[:MAX_REQUESTED_HEADERS]]
    return sorted({name for name in names if name in ALLOWED_HEADERS or ALLOWED_HEADER_PATTERN.fullmatch(name)})

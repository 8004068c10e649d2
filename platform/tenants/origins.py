"""Browsers on pages of other origins: who may read an answer, what a preflight is told. All of it pure.

`Origin` is checked (`limits.check_origin`, `tickets.check`), not only echoed: these headers keep a browser from reading
what it should not; the checks keep the desk from doing it.
"""

import re
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from tenants.access import normalize_origin
from tenants.errors import OriginNotAllowed
from tenants.models import Site

Headers: TypeAlias = list[tuple[bytes, bytes]]

METHODS = ("GET", "POST", "DELETE")
#: What a page may send: what our API reads, and what the official SDKs send from a browser.
TAKEN = frozenset(
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
TAKEN_FORM = re.compile(r"x-stainless-[a-z0-9-]{1,40}")
MOST_ASKED = 40
RATES_TOLD, COUNTED = ("limit", "remaining", "reset"), ("requests", "tokens")
#: What a page may read beside the body.
EXPOSED = (
    "X-Request-ID",
    "request-id",
    "X-Client-Request-ID",
    "Retry-After",
    "X-Cache",
    "Idempotent-Replayed",
    "Server-Timing",
    "X-Nightdesk-Overhead-Ms",
    *(f"x-ratelimit-{told}-{counted}" for told, counted in product(RATES_TOLD, COUNTED)),
    *(f"anthropic-ratelimit-{counted}-{told}" for told, counted in product(RATES_TOLD, COUNTED)),
)
PREFLIGHT_SECONDS = 600

_VARY = (b"vary", b"Origin")
_EXPOSED = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())


def allowed_origin(origin: str | None, site: Site, bound: str | None = None) -> str | None:
    """Return the `Origin` header as it is echoed; None where the page may not read the answer.

    `bound` is the one origin that a token is bound to (`Identity.origin`) or a ticket (`Ticket.origin`).
    """
    asking = normalize_origin(origin or "")
    if not asking or asking not in {normalize_origin(each) for each in site.origins}:
        return None
    return origin if bound is None or normalize_origin(bound) == asking else None


def origin_for(wanted: str | None, site: Site, *, own: str = "") -> str | None:
    """Return the origin that a token or ticket is to be bound to, as we write it; None for the desk's own pages.

    Those send no `Origin` when they read. `own` is the scheme and host that the desk was asked at.

    Raises:
        OriginNotAllowed: it is none of the site's origins.
    """
    if wanted is None:
        return None
    origin = normalize_origin(wanted)
    if origin and origin == normalize_origin(own):
        return None
    if not origin or origin not in {normalize_origin(each) for each in site.origins}:
        raise OriginNotAllowed(f"{wanted[:100]!r} is not among the site's origins.")
    return origin


def answer_headers(allowed: str | None) -> Headers:
    """Return what goes with every answer that a page of another origin may ask for, errors among them."""
    if allowed is None:
        return [_VARY]
    return [(b"access-control-allow-origin", allowed.encode("latin-1")), _EXPOSED, _VARY]


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a browser asks before it sends a request that a form could not send."""

    origin: str | None
    method: str | None
    #: As the browser wrote them: comma-separated, in lower case.
    headers: str = ""


def preflight_answer(asked: Preflight, *, is_known: bool) -> tuple[int, Headers]:
    """Return status and headers of the answer, which has no body.

    A preflight proves nothing, so nobody knows yet whose page asks: `is_known` says whether it is any active site's
    (`directory.knows_origin`). The request that follows is checked against its own site.
    """
    vary = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    if asked.origin is None or not is_known or asked.method not in METHODS:
        return 403, [vary]
    return 204, [
        (b"access-control-allow-origin", asked.origin.encode("latin-1")),
        (b"access-control-allow-methods", ", ".join(METHODS).encode()),
        (b"access-control-allow-headers", ", ".join(_taken(asked.headers)).encode()),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
        vary,
    ]


def _taken(text: str) -> list[str]:
    """Return those of the headers asked for that we take, each once."""
    names = [name.strip().lower() for name in text.split(",", MOST_ASKED)[:MOST_ASKED]]
    return sorted({name for name in names if name in TAKEN or TAKEN_FORM.fullmatch(name)})

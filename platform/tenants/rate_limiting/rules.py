"""Rules of rate limiting: the limits that apply to a request, merged from rows and settings, and cached per site."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from core.database_threads import DatabaseThreadPool
from core.ttl_cache import TTLCache
from tenants.models import Limit, LimitKind
from tenants.rate_limiting.windows import SlidingWindow, Unit

MINUTE, HOUR, DAY = 60, 3_600, 86_400
#: What each column of a row counts, and in how many seconds.
WINDOWED_FIELDS: Mapping[str, tuple[Unit, int]] = {
    "requests_per_minute": ("requests", MINUTE),
    "requests_per_hour": ("requests", HOUR),
    "requests_per_day": ("requests", DAY),
    "tokens_per_minute": ("tokens", MINUTE),
}

#: Kind and model of a row; empty means any.
LimitScope: TypeAlias = tuple[str, str]
ANY_SCOPE: LimitScope = ("", "")


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """All limits of a site on live requests."""

    windows: Mapping[LimitScope, tuple[SlidingWindow, ...]]
    #: How many of its requests may run concurrently; None: no limit.
    concurrency: int | None

    def windows_for(self, kind: LimitKind, model: str) -> tuple[SlidingWindow, ...]:
        """Return the windows that a request must fit into, the widest scope first."""
        get = self.windows.get
        return get(ANY_SCOPE, ()) + get((kind, ""), ()) + get(("", model), ()) + get((kind, model), ())


async def get_limits_async(site_id: UUID, threads: DatabaseThreadPool) -> SiteLimits:
    """Return the limits of a site. Only a cache miss waits for Postgres, with one query for all waiting requests."""
    return await _cache.get_async(site_id.hex, threads)


def get_limits(site_id: UUID) -> SiteLimits:
    """Return the limits of a site, for code that may block."""
    return _cache.get(site_id.hex)


def clear_cache() -> None:
    """Read the limits again when they are next used."""
    _cache.clear()


def load_limits(site_id: str) -> SiteLimits:
    """Query Postgres for what `get_limits` caches."""
    return merge_limits(Limit.objects.filter(Q(site=UUID(site_id)) | Q(site=None)).order_by())


def merge_limits(rows: Iterable[Limit]) -> SiteLimits:
    """Return the limits in effect: a site's own row replaces the row for every site, which replaces the settings."""
    rows_by_scope = {ANY_SCOPE: _default_limit()}
    for row in sorted(rows, key=lambda row: row.site_id is not None):
        rows_by_scope[row.kind, row.model] = row
    windows = {scope: _sliding_windows(scope, row) for scope, row in rows_by_scope.items()}
    return SiteLimits(windows, rows_by_scope[ANY_SCOPE].concurrency)


def _sliding_windows(scope: LimitScope, row: Limit) -> tuple[SlidingWindow, ...]:
    name = _window_name(*scope)
    limits = ((getattr(row, field), unit_and_span) for field, unit_and_span in WINDOWED_FIELDS.items())
    return tuple(SlidingWindow(name, unit, limit, seconds) for limit, (unit, seconds) in limits if limit)


def _window_name(kind: str, model: str) -> str:
    """Return the name of a scope's windows: `site`, `kind:chat`, `model:gpt-4o`, `kind:chat,model:gpt-4o`."""
    parts = [f"{word}:{value}" for word, value in (("kind", kind), ("model", model)) if value]
    return ",".join(parts) or "site"


def _default_limit() -> Limit:
    return Limit(
        requests_per_minute=settings.DEFAULT_REQUESTS_PER_MINUTE or None,
        tokens_per_minute=settings.DEFAULT_TOKENS_PER_MINUTE or None,
        concurrency=settings.DEFAULT_CONCURRENCY or None,
    )


_cache: TTLCache[str, SiteLimits] = TTLCache(load_limits)

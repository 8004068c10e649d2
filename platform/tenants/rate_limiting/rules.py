"""Which limits are for a request: its site's rows and those of every site, kept in the process for a moment."""

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
#: What a figure of a row counts, and in how many seconds.
WINDOWED_FIELDS: Mapping[str, tuple[Unit, int]] = {
    "requests_per_minute": ("requests", MINUTE),
    "requests_per_hour": ("requests", HOUR),
    "requests_per_day": ("requests", DAY),
    "tokens_per_minute": ("tokens", MINUTE),
}

#: Kind and model of a row; empty stands for any.
LimitScope: TypeAlias = tuple[str, str]
ANY_SCOPE: LimitScope = ("", "")


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """All limits of a site."""

    windows: Mapping[LimitScope, tuple[SlidingWindow, ...]]
    #: How many of its requests may run at once; None: any number.
    concurrency: int | None

    def windows_for(self, kind: LimitKind, model: str) -> tuple[SlidingWindow, ...]:
        """Return the windows that a request must fit into, the widest scope first."""
        found = self.windows.get
        return found(ANY_SCOPE, ()) + found((kind, ""), ()) + found(("", model), ()) + found((kind, model), ())


async def get_limits_async(site_id: UUID, threads: DatabaseThreadPool) -> SiteLimits:
    """Return the limits of a site, and wait for Postgres only where they are not known: once for all who wait."""
    return await _cache.get_async(site_id.hex, threads)


def get_limits(site_id: UUID) -> SiteLimits:
    """Return the limits of a site; for code that may wait."""
    return _cache.get(site_id.hex)


def clear_cache() -> None:
    """Read anew at the next look."""
    _cache.clear()


def load_limits(site_id: str) -> SiteLimits:
    """Ask Postgres what `get_limits` remembers."""
    return merge_limits(Limit.objects.filter(Q(site=UUID(site_id)) | Q(site=None)).order_by())


def merge_limits(rows: Iterable[Limit]) -> SiteLimits:
    """Put a site's own rows in the place of those for every site, and the settings where there is neither."""
    chosen = {ANY_SCOPE: _default_limit()}
    for row in sorted(rows, key=lambda row: row.site_id is not None):
        chosen[row.kind, row.model] = row
    windows = {scope: _sliding_windows(scope, row) for scope, row in chosen.items()}
    return SiteLimits(windows, chosen[ANY_SCOPE].concurrency)


def _sliding_windows(scope: LimitScope, row: Limit) -> tuple[SlidingWindow, ...]:
    name = _window_name(*scope)
    given = ((getattr(row, field), span) for field, span in WINDOWED_FIELDS.items())
    return tuple(SlidingWindow(name, unit, limit, seconds) for limit, (unit, seconds) in given if limit)


def _window_name(kind: str, model: str) -> str:
    """Return what the windows of a scope are called: `site`, `kind:chat`, `model:gpt-4o`, `kind:chat,model:gpt-4o`."""
    parts = [f"{word}:{value}" for word, value in (("kind", kind), ("model", model)) if value]
    return ",".join(parts) or "site"


def _default_limit() -> Limit:
    return Limit(
        requests_per_minute=settings.DEFAULT_REQUESTS_PER_MINUTE or None,
        tokens_per_minute=settings.DEFAULT_TOKENS_PER_MINUTE or None,
        concurrency=settings.DEFAULT_CONCURRENCY or None,
    )


_cache: TTLCache[str, SiteLimits] = TTLCache(load_limits)

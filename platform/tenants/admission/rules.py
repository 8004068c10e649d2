"""Which limits are for a request: its site's rows and those of every site, kept in the process for a moment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from core.threads import DatabaseThreads
from tenants.admission.windows import Unit, Window
from tenants.directory import ShortMemory
from tenants.lookups import look_up
from tenants.models import Limit, LimitedKind

MINUTE, HOUR, DAY = 60, 3_600, 86_400
#: What a figure of a row counts, and in how many seconds.
SPANS: Mapping[str, tuple[Unit, int]] = {
    "requests_per_minute": ("requests", MINUTE),
    "requests_per_hour": ("requests", HOUR),
    "requests_per_day": ("requests", DAY),
    "tokens_per_minute": ("tokens", MINUTE),
}

#: Kind and model of a row; empty stands for any.
Scope: TypeAlias = tuple[str, str]
ANY: Scope = ("", "")


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """All limits of a site."""

    windows: Mapping[Scope, tuple[Window, ...]]
    #: How many of its requests may run at once; None: any number.
    concurrency: int | None

    def windows_for(self, kind: LimitedKind, model: str) -> tuple[Window, ...]:
        """Return the windows that a request must fit into, the widest scope first."""
        found = self.windows.get
        return found(ANY, ()) + found((kind, ""), ()) + found(("", model), ()) + found((kind, model), ())


async def limits_for(site_id: UUID, threads: DatabaseThreads) -> SiteLimits:
    """Return the limits of a site, and wait for Postgres only where they are not known: once for all who wait."""
    return await look_up(_known, site_id.hex, threads)


def limits_of(site_id: UUID) -> SiteLimits:
    """Return the limits of a site; for code that may wait."""
    return _known.get(site_id.hex)


def forget() -> None:
    """Read anew at the next look."""
    _known.forget()


def load(site_id: str) -> SiteLimits:
    """Ask Postgres what `limits_of` remembers."""
    return combine(Limit.objects.filter(Q(site=UUID(site_id)) | Q(site=None)).order_by())


def combine(rows: Iterable[Limit]) -> SiteLimits:
    """Put a site's own rows in the place of those for every site, and the settings where there is neither."""
    chosen = {ANY: _default()}
    for row in sorted(rows, key=lambda row: row.site_id is not None):
        chosen[row.kind, row.model] = row
    windows = {scope: _windows(scope, row) for scope, row in chosen.items()}
    return SiteLimits(windows, chosen[ANY].concurrency)


def _windows(scope: Scope, row: Limit) -> tuple[Window, ...]:
    name = _name(*scope)
    given = ((getattr(row, field), span) for field, span in SPANS.items())
    return tuple(Window(name, unit, limit, seconds) for limit, (unit, seconds) in given if limit)


def _name(kind: str, model: str) -> str:
    """Return what the windows of a scope are called: `site`, `kind:chat`, `model:gpt-4o`, `kind:chat,model:gpt-4o`."""
    parts = [f"{word}:{value}" for word, value in (("kind", kind), ("model", model)) if value]
    return ",".join(parts) or "site"


def _default() -> Limit:
    return Limit(
        requests_per_minute=settings.DEFAULT_REQUESTS_PER_MINUTE or None,
        tokens_per_minute=settings.DEFAULT_TOKENS_PER_MINUTE or None,
        concurrency=settings.DEFAULT_CONCURRENCY or None,
    )


_known: ShortMemory[SiteLimits] = ShortMemory(load)

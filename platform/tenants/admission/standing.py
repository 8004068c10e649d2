"""How a site stands with its limits: what there is of each, and what is left of it now. Looking uses nothing up."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis
import structlog
from django.conf import settings

from core.redis import RedisAway, waiting_client
from tenants.admission.packing import doubles, left_of, numbers
from tenants.admission.rules import Scope, SiteLimits, limits_of
from tenants.admission.scripts import SCRIPTS, Scripts
from tenants.admission.windows import LARGEST_LIMIT, Left, Window, site_prefix
from tenants.models import Site

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WindowNow:
    """A window, and what is left of it."""

    #: Kind and model; empty stands for any.
    scope: Scope
    window: Window
    #: None: Redis is away, so nobody knows.
    left: Left | None


@dataclass(frozen=True, slots=True)
class Standing:
    """All live limits of a site."""

    #: The widest scope first.
    windows: tuple[WindowNow, ...]
    #: How many requests may run at once; None: any number.
    concurrency: int | None
    #: How many run; None: nobody counts them, or Redis is away.
    running: int | None


@dataclass(frozen=True, slots=True)
class Counted:
    """What Redis says."""

    running: int
    left: tuple[Left, ...]


def standing_of(site: Site) -> Standing:
    """Return the site's limits, with what is left as far as Redis tells."""
    limits = limits_of(site.id)
    scoped = in_order(limits)
    windows = [window for _, window in scoped]
    try:
        with waiting_client(settings.REDIS_URL) as server:
            counted = look(server, site.public_id, windows)
    except RedisAway as error:
        log.warning("limits_without_redis", error=str(error))
        return Standing(tuple(WindowNow(*each, None) for each in scoped), limits.concurrency, None)
    # Where any number may run, requests without a limit on tokens are not in the list of those that do.
    running = None if limits.concurrency is None else counted.running
    found = zip(scoped, counted.left, strict=True)
    return Standing(tuple(WindowNow(*each, left) for each, left in found), limits.concurrency, running)


def in_order(limits: SiteLimits) -> list[tuple[Scope, Window]]:
    """Return all windows of a site with their scopes, the widest first."""
    scopes = sorted(limits.windows, key=lambda scope: (sum(map(bool, scope)), scope))
    return [(scope, window) for scope in scopes for window in limits.windows[scope]]


def look(server: redis.Redis, site: str, windows: Sequence[Window], scripts: Scripts = SCRIPTS) -> Counted:
    """Read how windows of a site stand. Raises `RedisAway`."""
    prefix = site_prefix(site)
    figures = [figure for each in windows for figure in (min(each.limit, LARGEST_LIMIT), each.seconds * 1_000_000)]
    keys = [prefix + b"running", *(prefix + window.key for window in windows)]
    running, *left = numbers(scripts.look.run_waiting(server, keys, [doubles(figures)]))
    return Counted(int(running), left_of(windows, left))

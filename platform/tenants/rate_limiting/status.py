"""How a site stands with its limits: what there is of each, and what is left of it now. Looking uses nothing up."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis
import structlog
from django.conf import settings

from core.redis import RedisUnavailable, blocking_client
from tenants.models import Site
from tenants.rate_limiting.packing import pack_doubles, to_quotas, unpack_doubles
from tenants.rate_limiting.rules import LimitScope, SiteLimits, get_limits
from tenants.rate_limiting.scripts import SCRIPTS, Scripts
from tenants.rate_limiting.windows import MAX_LIMIT, RemainingQuota, SlidingWindow, site_key_prefix

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """A window, and what is left of it."""

    #: Kind and model; empty stands for any.
    scope: LimitScope
    window: SlidingWindow
    #: None: Redis is away, so nobody knows.
    quota: RemainingQuota | None


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """All live limits of a site."""

    #: The widest scope first.
    windows: tuple[WindowStatus, ...]
    #: How many requests may run at once; None: any number.
    concurrency: int | None
    #: How many run; None: nobody counts them, or Redis is away.
    running: int | None


@dataclass(frozen=True, slots=True)
class RateLimitSnapshot:
    """What Redis says."""

    running: int
    quotas: tuple[RemainingQuota, ...]


def get_rate_limit_status(site: Site) -> RateLimitStatus:
    """Return the site's limits, with what is left as far as Redis tells."""
    limits = get_limits(site.id)
    scoped = windows_in_order(limits)
    windows = [window for _, window in scoped]
    try:
        with blocking_client(settings.REDIS_URL) as server:
            counted = read_windows(server, site.public_id, windows)
    except RedisUnavailable as error:
        log.warning("rate_limit_status_redis_unavailable", error=str(error))
        return RateLimitStatus(tuple(WindowStatus(*each, None) for each in scoped), limits.concurrency, None)
    # Where any number may run, requests without a limit on tokens are not in the list of those that do.
    running = None if limits.concurrency is None else counted.running
    found = zip(scoped, counted.quotas, strict=True)
    return RateLimitStatus(tuple(WindowStatus(*each, left) for each, left in found), limits.concurrency, running)


def windows_in_order(limits: SiteLimits) -> list[tuple[LimitScope, SlidingWindow]]:
    """Return all windows of a site with their scopes, the widest first."""
    scopes = sorted(limits.windows, key=lambda scope: (sum(map(bool, scope)), scope))
    return [(scope, window) for scope in scopes for window in limits.windows[scope]]


def read_windows(
    server: redis.Redis, site: str, windows: Sequence[SlidingWindow], scripts: Scripts = SCRIPTS
) -> RateLimitSnapshot:
    """Read how windows of a site stand. Raises `RedisUnavailable`."""
    prefix = site_key_prefix(site)
    figures = [figure for each in windows for figure in (min(each.limit, MAX_LIMIT), each.seconds * 1_000_000)]
    keys = [prefix + b"running", *(prefix + window.key for window in windows)]
    running, *left = unpack_doubles(scripts.peek.run_blocking(server, keys, [pack_doubles(figures)]))
    return RateLimitSnapshot(int(running), to_quotas(windows, left))

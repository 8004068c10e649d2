"""A site's rate limits and what remains of each now. Reading the status uses nothing up."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis
import structlog
from django.conf import settings
from msgspec.structs import astuple

from core.lua import pack_doubles, unpack_doubles
from core.redis import RedisUnavailable, blocking_client
from tenants.models import Site
from tenants.rate_limiting.rules import LimitScope, SiteLimits, get_limits
from tenants.rate_limiting.scripts import SCRIPTS, PeekArguments, PeekKeys, PeekReply, PeekWindow, Scripts
from tenants.rate_limiting.windows import RemainingQuota, SlidingWindow, site_key_prefix, to_quotas

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """A window, and what remains of it."""

    #: Kind and model; empty means any.
    scope: LimitScope
    window: SlidingWindow
    #: None: Redis is unavailable, so it is unknown.
    quota: RemainingQuota | None


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """All limits of a site on live requests."""

    #: The widest scope first.
    windows: tuple[WindowStatus, ...]
    #: How many requests may run concurrently; None: no limit.
    concurrency: int | None
    #: How many are running; None: without a limit they are not counted, or Redis is unavailable.
    running: int | None


@dataclass(frozen=True, slots=True)
class RateLimitSnapshot:
    """The state in Redis at one moment."""

    running: int
    quotas: tuple[RemainingQuota, ...]


def get_rate_limit_status(site: Site) -> RateLimitStatus:
    """Return the site's limits, with what remains of each unless Redis is unavailable."""
    limits = get_limits(site.id)
    scoped = windows_in_order(limits)
    windows = [window for _, window in scoped]
    try:
        with blocking_client(settings.REDIS_URL) as server:
            snapshot = read_windows(server, site.public_id, windows)
    except RedisUnavailable as error:
        log.warning("rate_limit_status_redis_unavailable", error=str(error))
        return RateLimitStatus(tuple(WindowStatus(*each, None) for each in scoped), limits.concurrency, None)
    # Without a limit on concurrency, requests that reserve no tokens are not among the running ones.
    running = None if limits.concurrency is None else snapshot.running
    statuses = (WindowStatus(*each, quota) for each, quota in zip(scoped, snapshot.quotas, strict=True))
    return RateLimitStatus(tuple(statuses), limits.concurrency, running)


def windows_in_order(limits: SiteLimits) -> list[tuple[LimitScope, SlidingWindow]]:
    """Return all windows of a site with their scopes, the widest first."""
    scopes = sorted(limits.windows, key=lambda scope: (sum(map(bool, scope)), scope))
    return [(scope, window) for scope in scopes for window in limits.windows[scope]]


def read_windows(
    server: redis.Redis, site: str, windows: Sequence[SlidingWindow], scripts: Scripts = SCRIPTS
) -> RateLimitSnapshot:
    """Return the state of a site's windows. Raises `RedisUnavailable`."""
    prefix = site_key_prefix(site)
    keys = PeekKeys(running=prefix + b"running")
    rows = [PeekWindow(limit=window.exact_limit, span_us=window.span_us) for window in windows]
    arguments = PeekArguments(numbers=pack_doubles(None, rows))
    window_keys = [prefix + window.key for window in windows]
    packed = scripts.peek.run_blocking(server, [*astuple(keys), *window_keys], astuple(arguments))
    reply, quotas = unpack_doubles(packed, PeekReply)
    return RateLimitSnapshot(int(reply.running_count), to_quotas(windows, quotas))

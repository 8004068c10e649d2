"""Cached look-ups of credentials: whose signing secret, whose API key, which credential is live, which origin is known.

Other processes are not notified of a revocation. It takes effect there because no cached value is older than
`core.ttl_cache.TTL_SECONDS`, counted from before its query was sent.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from core.database_threads import DatabaseThreadPool
from core.ids import InvalidId, from_public
from core.ttl_cache import CacheMiss, CacheReader, TTLCache
from tenants.errors import InvalidCredentials
from tenants.models import Credential, CredentialKind, Site

#: How many live credentials of one kind a site may have. Authentication always tries this many secrets.
MAX_LIVE_CREDENTIALS = 4
#: More than any authentication makes. Only a cache that is far too small for its load drops entries so fast.
MAX_LOOKUPS = 4

#: Credentials that still authenticate, by Postgres's clock.
IS_LIVE = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))

#: Slugs and public ids. No other name is looked up, so that cache keys are short and Postgres can read them.
SITE_NAME_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,63}")
ORIGIN_PATTERN = re.compile(r"https?://[\x21-\x7e]{1,240}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveSecret:
    credential_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class SiteSecrets:
    """A site and its live signing secrets, the newest first. Threads share the site: read it, never write."""

    site: Site
    secrets: tuple[LiveSecret, ...]


@dataclass(frozen=True, slots=True)
class KeyOwner:
    site: Site
    credential_id: str
    key_hash: bytes


def find_site_secrets(name: str) -> SiteSecrets | None:
    """Return the active site with this public id or slug; None if it is unknown or has no live secret."""
    return _site_secrets_cache.get(name) if SITE_NAME_PATTERN.fullmatch(name) else None


def find_key_owner(prefix: str) -> KeyOwner | None:
    """Return the owner of the live API key with this prefix, or None."""
    return _key_owner_cache.get(prefix)


def site_for_credential(credential_id: str) -> Site | None:
    """Return the active site of the live credential with this public id, of any kind; None if there is none."""
    return _credential_site_cache.get(credential_id)


def is_known_origin(origin: str) -> bool:
    """Return whether this origin, as `access.normalize_origin` writes it, belongs to any active site."""
    return bool(ORIGIN_PATTERN.fullmatch(origin)) and _origin_cache.get(origin)


class Lookups(Protocol):
    """The look-ups that authentication makes."""

    def find_site_secrets(self, name: str) -> SiteSecrets | None: ...
    def find_key_owner(self, prefix: str) -> KeyOwner | None: ...
    def site_for_credential(self, credential_id: str) -> Site | None: ...


class BlockingLookups:
    """Look-ups that query Postgres on a cache miss."""

    find_site_secrets = staticmethod(find_site_secrets)
    find_key_owner = staticmethod(find_key_owner)
    site_for_credential = staticmethod(site_for_credential)


class CachedLookups(CacheReader):
    """Look-ups that never wait: a cache miss raises `CacheMiss`."""

    def find_site_secrets(self, name: str) -> SiteSecrets | None:
        return self.peek(_site_secrets_cache, name) if SITE_NAME_PATTERN.fullmatch(name) else None

    def find_key_owner(self, prefix: str) -> KeyOwner | None:
        return self.peek(_key_owner_cache, prefix)

    def site_for_credential(self, credential_id: str) -> Site | None:
        return self.peek(_credential_site_cache, credential_id)

    def is_known_origin(self, origin: str) -> bool:
        return bool(ORIGIN_PATTERN.fullmatch(origin)) and self.peek(_origin_cache, origin)


async def with_cached_lookups(decide: Callable[[CachedLookups], T], threads: DatabaseThreadPool) -> T:
    """Return what `decide` returns, on an event loop that never waits for Postgres itself.

    `decide` runs again after each cache miss, so it must have no side effects.
    """
    for _ in range(MAX_LOOKUPS):
        lookups = CachedLookups()
        try:
            decided = decide(lookups)
        except CacheMiss as miss:
            # Shielded: other requests wait for the same load, and this one may be canceled.
            await asyncio.shield(miss.entry.refresh(threads))
        else:
            lookups.refresh_due(threads)
            return decided
    raise InvalidCredentials


def find_site_row(name: str) -> Site | None:
    """Return the site with this public id or slug as Postgres has it now, active or not."""
    return Site.objects.filter(_by_name(name, "")).first()


def find_credential_row(public_id: str) -> Credential | None:
    """Return the credential with this public id as Postgres has it now, live or not."""
    try:
        credential_id = from_public(Credential.ID_PREFIX, public_id)
    except InvalidId:
        return None
    return Credential.objects.select_related("site").filter(id=credential_id).first()


def clear_caches() -> None:
    """Drop every cached look-up of this process."""
    caches: tuple[TTLCache[str, Any], ...] = (
        _site_secrets_cache,
        _key_owner_cache,
        _credential_site_cache,
        _origin_cache,
    )
    for cache in caches:
        cache.clear()


def load_site_secrets(name: str) -> SiteSecrets | None:
    """Query Postgres for what `find_site_secrets` caches."""
    # One query, so that its result has one age.
    live = list(
        _live_credentials(CredentialKind.SIGNING_SECRET)
        .filter(_by_name(name, "site__"))
        .order_by("-created_at")[:MAX_LIVE_CREDENTIALS]
    )
    if not live:
        return None
    secrets = tuple(LiveSecret(each.public_id, _decode_secret(each.secret)) for each in live)
    return SiteSecrets(live[0].site, secrets)


def _by_name(name: str, path: str) -> Q:
    try:
        return Q(**{f"{path}id": from_public(Site.ID_PREFIX, name)})
    except InvalidId:
        return Q(**{f"{path}slug": name})


def load_key_owner(prefix: str) -> KeyOwner | None:
    """Query Postgres for what `find_key_owner` caches."""
    credential = _live_credentials(CredentialKind.API_KEY).filter(key_prefix=prefix).first()
    if credential is None or credential.key_hash is None:
        return None
    return KeyOwner(credential.site, credential.public_id, bytes(credential.key_hash))


def load_site_for_credential(credential_id: str) -> Site | None:
    """Query Postgres for what `site_for_credential` caches."""
    try:
        row_id = from_public(Credential.ID_PREFIX, credential_id)
    except InvalidId:
        return None
    credential = _live_credentials().filter(id=row_id).first()
    return credential.site if credential else None


def load_is_known_origin(origin: str) -> bool:
    """Query Postgres for what `is_known_origin` caches."""
    return Site.objects.filter(is_active=True, origins__contains=[origin]).exists()


def _live_credentials(*kinds: CredentialKind) -> QuerySet[Credential]:
    in_kinds = kinds or tuple(CredentialKind)
    return Credential.objects.filter(IS_LIVE, kind__in=in_kinds, site__is_active=True).select_related("site")


def _decode_secret(secret: bytes | None) -> str:
    return (secret or b"").decode()


_site_secrets_cache: TTLCache[str, SiteSecrets | None] = TTLCache(load_site_secrets)
_key_owner_cache: TTLCache[str, KeyOwner | None] = TTLCache(load_key_owner)
_credential_site_cache: TTLCache[str, Site | None] = TTLCache(load_site_for_credential)
_origin_cache: TTLCache[str, bool] = TTLCache(load_is_known_origin)

"""Hot look-ups: whose secret is this, whose key, which credential still counts. Kept for less than a second.

Nobody tells other processes about a revocation. They learn it because nothing they remember is older than
`TTL_SECONDS`, counted from before the query was sent.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from core.ids import InvalidId, from_public
from tenants.models import Credential, CredentialKind, Site

#: The promise is one second; the rest is for the request under way.
TTL_SECONDS = 0.9
#: What is asked for at this age is worth asking Postgres again, before somebody has to wait for it.
REFRESH_AFTER_SECONDS = 0.4
MAX_CACHE_ENTRIES = 4096
#: How many credentials of one kind a site may have live at once. Proofs always try this many secrets (`proof`).
MAX_LIVE_CREDENTIALS = 4

#: Credentials that still prove something, by Postgres's clock.
IS_LIVE = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))

#: Slugs and public ids. Nothing else is asked for, so that what is remembered is short and Postgres can read it.
SITE_NAME_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,63}")
ORIGIN_PATTERN = re.compile(r"https?://[\x21-\x7e]{1,240}")

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class LiveSecret:
    credential_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class SiteSecrets:
    """A site and its live signing secrets, the newest first. The site is shared by threads: read it, never write."""

    site: Site
    secrets: tuple[LiveSecret, ...]


@dataclass(frozen=True, slots=True)
class KeyOwner:
    site: Site
    credential_id: str
    key_hash: bytes


class CacheMiss(Exception):
    """What is asked for is not remembered; `memory.load(key)` would ask Postgres."""

    def __init__(self, cache: "TTLCache[Any]", key: str) -> None:
        super().__init__()
        self.cache = cache
        self.key = key


class TTLCache(Generic[V]):
    """Remembers what `load` answered, also None, for a moment and up to a size. Any thread may ask."""

    def __init__(
        self,
        load: Callable[[str], V],
        *,
        seconds: float = TTL_SECONDS,
        size: int = MAX_CACHE_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._entries: dict[str, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> V:
        """Return what was loaded less than `seconds` ago, or load it now."""
        try:
            return self.peek(key)[0]
        except CacheMiss:
            return self.load(key)

    def peek(self, key: str) -> tuple[V, float]:
        """Return what was loaded less than `seconds` ago, and how long ago. Raises `CacheMiss`."""
        now = self._clock()
        with self._lock:
            found = self._entries.get(key)
        if found is None or now - found[0] >= self._seconds:
            raise CacheMiss(self, key)
        return found[1], now - found[0]

    def load(self, key: str) -> V:
        """Ask now, and remember the answer."""
        queried_at = self._clock()
        # Not under the lock: a slow query holds up nobody else. Two threads may load the same; both are right.
        value = self._load(key)
        self._store(key, queried_at, value)
        return value

    def clear(self) -> None:
        """Remember nothing."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _store(self, key: str, queried_at: float, value: V) -> None:
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = (queried_at, value)
            # The first in the dictionary is the oldest, and all have the same time to live.
            while len(self._entries) > self._size:
                del self._entries[next(iter(self._entries))]


def find_site_secrets(name: str) -> SiteSecrets | None:
    """Return the active site with this public id or slug; None if it is unknown or has no live secret."""
    return _site_secrets_cache.get(name) if SITE_NAME_PATTERN.fullmatch(name) else None


def find_key_owner(prefix: str) -> KeyOwner | None:
    """Return whose live API key has this prefix, or None."""
    return _key_owner_cache.get(prefix)


def site_for_credential(credential_id: str) -> Site | None:
    """Return the active site of the live credential with this public id, of whatever kind; None if there is none."""
    return _credential_site_cache.get(credential_id)


def is_known_origin(origin: str) -> bool:
    """Say whether pages of this origin, as `limits.read_origin` writes it, are those of any active site."""
    return bool(ORIGIN_PATTERN.fullmatch(origin)) and _origin_cache.get(origin)


class Lookups(Protocol):
    """Where a proof is looked up."""

    def find_site_secrets(self, name: str) -> SiteSecrets | None: ...
    def find_key_owner(self, prefix: str) -> KeyOwner | None: ...
    def site_for_credential(self, credential_id: str) -> Site | None: ...


class BlockingLookups:
    """Looks up what is remembered, and asks Postgres for the rest."""

    find_site_secrets = staticmethod(find_site_secrets)
    find_key_owner = staticmethod(find_key_owner)
    site_for_credential = staticmethod(site_for_credential)


class CachedLookups:
    """Looks up what is remembered, and raises `CacheMiss` for the rest. It never waits."""

    def __init__(self) -> None:
        #: What is remembered, but should be asked for anew.
        self.due_for_refresh: list[CacheMiss] = []

    def find_site_secrets(self, name: str) -> SiteSecrets | None:
        return self.peek(_site_secrets_cache, name) if SITE_NAME_PATTERN.fullmatch(name) else None

    def find_key_owner(self, prefix: str) -> KeyOwner | None:
        return self.peek(_key_owner_cache, prefix)

    def site_for_credential(self, credential_id: str) -> Site | None:
        return self.peek(_credential_site_cache, credential_id)

    def is_known_origin(self, origin: str) -> bool:
        return bool(ORIGIN_PATTERN.fullmatch(origin)) and self.peek(_origin_cache, origin)

    def peek(self, cache: TTLCache[V], key: str) -> V:
        value, age = cache.peek(key)
        if age > REFRESH_AFTER_SECONDS:
            self.due_for_refresh.append(CacheMiss(cache, key))
        return value


def find_site_row(name: str) -> Site | None:
    """Return the site with this public id or slug as it stands in Postgres now, active or not."""
    return Site.objects.filter(_by_name(name, "")).first()


def find_credential_row(public_id: str) -> Credential | None:
    """Return the credential with this public id as it stands in Postgres now, live or not."""
    try:
        wanted = from_public(Credential.ID_PREFIX, public_id)
    except InvalidId:
        return None
    return Credential.objects.select_related("site").filter(id=wanted).first()


def clear_caches() -> None:
    """Remember nothing in this process."""
    for cache in (_site_secrets_cache, _key_owner_cache, _credential_site_cache, _origin_cache):
        cache.clear()


def load_site_secrets(name: str) -> SiteSecrets | None:
    """Ask Postgres what `find_site_secrets` remembers."""
    named = _by_name(name, "site__")
    # One query, so that there is one moment from which its answer counts.
    found = list(
        _live_credentials(CredentialKind.SIGNING_SECRET).filter(named).order_by("-created_at")[:MAX_LIVE_CREDENTIALS]
    )
    if not found:
        return None
    secrets = tuple(LiveSecret(each.public_id, _decode_secret(each.secret)) for each in found)
    return SiteSecrets(found[0].site, secrets)


def _by_name(name: str, path: str) -> Q:
    try:
        return Q(**{f"{path}id": from_public(Site.ID_PREFIX, name)})
    except InvalidId:
        return Q(**{f"{path}slug": name})


def load_key_owner(prefix: str) -> KeyOwner | None:
    """Ask Postgres what `find_key_owner` remembers."""
    found = _live_credentials(CredentialKind.API_KEY).filter(key_prefix=prefix).first()
    if found is None or found.key_hash is None:
        return None
    return KeyOwner(found.site, found.public_id, bytes(found.key_hash))


def load_site_for_credential(credential_id: str) -> Site | None:
    """Ask Postgres what `site_for_credential` remembers."""
    try:
        wanted = from_public(Credential.ID_PREFIX, credential_id)
    except InvalidId:
        return None
    found = _live_credentials().filter(id=wanted).first()
    return found.site if found else None


def load_is_known_origin(origin: str) -> bool:
    """Ask Postgres what `is_known_origin` remembers."""
    return Site.objects.filter(is_active=True, origins__contains=[origin]).exists()


def _live_credentials(*kinds: CredentialKind) -> QuerySet[Credential]:
    wanted = kinds or tuple(CredentialKind)
    return Credential.objects.filter(IS_LIVE, kind__in=wanted, site__is_active=True).select_related("site")


def _decode_secret(secret: bytes | None) -> str:
    return (secret or b"").decode()


_site_secrets_cache: TTLCache[SiteSecrets | None] = TTLCache(load_site_secrets)
_key_owner_cache: TTLCache[KeyOwner | None] = TTLCache(load_key_owner)
_credential_site_cache: TTLCache[Site | None] = TTLCache(load_site_for_credential)
_origin_cache: TTLCache[bool] = TTLCache(load_is_known_origin)

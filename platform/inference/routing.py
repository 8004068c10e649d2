"""Routing: the targets that serve a model, from rows and settings; cached in the process for less than a second."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import structlog
from django.conf import settings
from django.db.models import BinaryField
from django.db.models.functions import Cast

from core.crypto import CryptoError
from core.database_threads import DatabaseThreadPool
from core.ttl_cache import TTLCache
from inference.errors import NoProviderKey, UnknownModel
from inference.models import ProviderAccount, RouteTarget
from providers.catalogue import vendors_of
from providers.tiers import Tier
from providers.types import ChatRequest, Dialect, InferenceRequest

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """Everything needed to call a provider. Equal specs share one client."""

    name: str
    dialect: Dialect
    base_url: str
    api_key: str | None = field(repr=False)
    price_list: str = ""
    api_version: str = ""
    #: Serves every model of its price list by name, without a route.
    serves_all_models: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One provider and its model that may serve a request."""

    provider: ProviderSpec
    upstream_model: str
    position: int = 1
    weight: int = 1

    def tier_of(self, request: InferenceRequest) -> Tier:
        """Return the tier requested of this target: only a provider of the caller's dialect gets a non-standard one."""
        if not isinstance(request, ChatRequest) or request.tier is Tier.STANDARD or request.original is None:
            return Tier.STANDARD
        return request.tier if self.provider.dialect.body_dialect is request.original.dialect else Tier.STANDARD


@dataclass(frozen=True, slots=True)
class Routing:
    """All providers and routes as configured at one moment."""

    providers: tuple[ProviderSpec, ...]
    routes: Mapping[str, tuple[Target, ...]]

    def targets_for(self, model: str) -> tuple[Target, ...]:
        """Return the targets of a model's route; without a route, the providers whose price list has the model.

        Raises:
            UnknownModel: no route has this name, and no such provider has the model.
        """
        if targets := self.routes.get(model):
            return targets
        vendors = vendors_of(model)
        targets = tuple(
            Target(spec, model) for spec in self.providers if spec.serves_all_models and spec.price_list in vendors
        )
        if not targets:
            raise UnknownModel(model)
        return targets


def filter_capable(targets: tuple[Target, ...], request: InferenceRequest) -> tuple[Target, ...]:
    """Return the targets that can serve everything in the request: some settings exist in the caller's dialect only.

    Raises:
        InvalidRequest: no target can.
    """
    if not isinstance(request, ChatRequest) or request.original is None or request.untranslatable is None:
        return targets
    capable = tuple(target for target in targets if target.provider.dialect.body_dialect is request.original.dialect)
    if not capable:
        raise replace(request.untranslatable)
    return capable


def order_targets(targets: Sequence[Target], rng: random.Random) -> list[Target]:
    """Order targets for one request: by position, and within a position at random by weight."""
    if len(targets) == 1:
        return list(targets)
    ordered: list[Target] = []
    for _, group in groupby(sorted(targets, key=lambda t: t.position), key=lambda t: t.position):
        # Each target draws an arrival time at a rate equal to its weight; sorting by it is a weighted shuffle.
        ordered += sorted(group, key=lambda t: rng.expovariate(t.weight))
    return ordered


def with_key(model: str, targets: Sequence[Target]) -> list[Target]:
    """Return the targets that have a key. Raises `NoProviderKey` if none has."""
    usable = [target for target in targets if target.provider.api_key]
    if not usable:
        raise NoProviderKey(model, [target.provider.name for target in targets])
    return usable


def first_provider(targets: Iterable[Target]) -> str:
    """Return the name of the first provider, whose limit of concurrent jobs applies. Empty if no target has a key."""
    usable = [target for target in targets if target.provider.api_key]
    first = min(usable, key=lambda target: (target.position, -target.weight), default=None)
    return first.provider.name if first else ""


def get_routing() -> Routing:
    """Return the routing, less than a second old; on a cache miss it is read now. For code that may block."""
    return cache.get(None)


async def get_routing_async(threads: DatabaseThreadPool) -> Routing:
    """Return the routing on an event loop, which waits for Postgres only on a cache miss."""
    return await cache.get_async(None, threads)


def invalidate_cache() -> None:
    """Read the routing again when it is next used."""
    cache.clear()


def load_routing() -> Routing:
    """Read providers and routes from the database, and add the providers whose keys are in the settings."""
    # Keys are read encrypted: one that cannot be decrypted must not break the routes of other providers.
    accounts = ProviderAccount.objects.defer("api_key").annotate(sealed_key=Cast("api_key", BinaryField()))
    stored = {row.name: _to_spec(row, row.sealed_key) for row in accounts.filter(is_active=True)}
    rows = RouteTarget.objects.filter(route__is_active=True, provider__is_active=True)
    routes: dict[str, list[Target]] = {}
    for model, provider, upstream_model, position, weight in rows.order_by("position", "-weight", "id").values_list(
        "route__model", "provider__name", "upstream_model", "position", "weight"
    ):
        if provider in stored:  # otherwise it was created between the two queries; the next read finds it
            routes.setdefault(model, []).append(Target(stored[provider], upstream_model, position, weight))
    from_settings = [spec for spec in providers_from_settings() if spec.name not in stored]
    return Routing((*stored.values(), *from_settings), {model: tuple(targets) for model, targets in routes.items()})


def _to_spec(row: ProviderAccount, sealed_key: bytes | None) -> ProviderSpec:
    return ProviderSpec(
        name=row.name,
        dialect=Dialect(row.dialect),
        base_url=row.base_url,
        api_key=_decrypt_key(row.name, sealed_key),
        price_list=row.price_list,
        api_version=row.api_version,
        serves_all_models=row.serves_all_models,
    )


def _decrypt_key(provider: str, sealed_key: bytes | None) -> str | None:
    """Return the key; None if there is none or it cannot be decrypted: requests treat both alike."""
    if sealed_key is None:
        return None
    try:
        return ProviderAccount._meta.get_field("api_key").decrypt(bytes(sealed_key)).decode()
    except CryptoError as error:
        log.error("provider_key_unreadable", provider=provider, error=str(error))
        return None


def providers_from_settings() -> list[ProviderSpec]:
    """Return the providers whose keys are in the settings."""
    configured = (
        ("openai", Dialect.OPENAI, settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY),
        ("anthropic", Dialect.ANTHROPIC, settings.ANTHROPIC_BASE_URL, settings.ANTHROPIC_API_KEY),
        ("azure", Dialect.AZURE, settings.AZURE_OPENAI_ENDPOINT, settings.AZURE_OPENAI_API_KEY),
    )
    return [
        ProviderSpec(name, dialect, base_url, key, price_list=name, serves_all_models=True)
        for name, dialect, base_url, key in configured
        if key and base_url
    ]


#: One entry, the whole routing. A changed route or key takes effect everywhere within a second.
cache: TTLCache[None, Routing] = TTLCache(lambda _: load_routing())

"""Which targets serve a model: rows and settings, read together and kept in the process for less than a second."""

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
    """All that is needed to speak to a provider. Equal specs share one client."""

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
    """One place where a request may go."""

    provider: ProviderSpec
    upstream_model: str
    position: int = 1
    weight: int = 1

    def tier_of(self, request: InferenceRequest) -> Tier:
        """Return the tier that is asked for here: only a provider of the caller's dialect is told of another one."""
        if not isinstance(request, ChatRequest) or request.tier is Tier.STANDARD or request.original is None:
            return Tier.STANDARD
        return request.tier if self.provider.dialect.body_dialect is request.original.dialect else Tier.STANDARD


@dataclass(frozen=True, slots=True)
class Routing:
    """Everything that was configured at one moment."""

    providers: tuple[ProviderSpec, ...]
    routes: Mapping[str, tuple[Target, ...]]

    def targets_for(self, model: str) -> tuple[Target, ...]:
        """Return the targets of a model's route; without one, the providers that sell a model of that name.

        Raises:
            UnknownModel: no route has this name, and no provider is known to have such a model.
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
    """Return the targets that can do all that is asked for: what only one dialect can say, others cannot.

    Raises:
        InvalidRequest: none can.
    """
    if not isinstance(request, ChatRequest) or request.original is None or request.untranslatable is None:
        return targets
    found = tuple(target for target in targets if target.provider.dialect.body_dialect is request.original.dialect)
    if not found:
        raise replace(request.untranslatable)
    return found


def order_targets(targets: Sequence[Target], rng: random.Random) -> list[Target]:
    """Order targets for one request: by position, and within a position at random by weight."""
    if len(targets) == 1:
        return list(targets)
    ordered: list[Target] = []
    for _, group in groupby(sorted(targets, key=lambda t: t.position), key=lambda t: t.position):
        # Each draws a time of arrival at a rate equal to its weight; sorting by it is a weighted shuffle.
        ordered += sorted(group, key=lambda t: rng.expovariate(t.weight))
    return ordered


def with_key(model: str, targets: Sequence[Target]) -> list[Target]:
    """Return the targets that have a key. Raises `NoProviderKey` where none has."""
    usable = [target for target in targets if target.provider.api_key]
    if not usable:
        raise NoProviderKey(model, [target.provider.name for target in targets])
    return usable


def first_provider(targets: Iterable[Target]) -> str:
    """Name the provider in the first place: whose cap on running jobs counts. Empty where none has a key."""
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
    """Read providers and routes from the database, and add the providers whose keys the settings give."""
    # The key comes as it is stored: one that does not open must not take the other providers' routes with it.
    accounts = ProviderAccount.objects.defer("api_key").annotate(sealed_key=Cast("api_key", BinaryField()))
    kept = {row.name: _to_spec(row, row.sealed_key) for row in accounts.filter(is_active=True)}
    rows = RouteTarget.objects.filter(route__is_active=True, provider__is_active=True)
    routes: dict[str, list[Target]] = {}
    for model, provider, upstream_model, position, weight in rows.order_by("position", "-weight", "id").values_list(
        "route__model", "provider__name", "upstream_model", "position", "weight"
    ):
        if provider in kept:  # or else it was made between the two statements, and is seen next time
            routes.setdefault(model, []).append(Target(kept[provider], upstream_model, position, weight))
    given = [spec for spec in providers_from_settings() if spec.name not in kept]
    return Routing((*kept.values(), *given), {model: tuple(targets) for model, targets in routes.items()})


def _to_spec(row: ProviderAccount, sealed_key: bytes | None) -> ProviderSpec:
    return ProviderSpec(
        name=row.name,
        dialect=Dialect(row.dialect),
        base_url=row.base_url,
        api_key=_open_key(row.name, sealed_key),
        price_list=row.price_list,
        api_version=row.api_version,
        serves_all_models=row.serves_all_models,
    )


def _open_key(provider: str, sealed_key: bytes | None) -> str | None:
    """Return the key; None where there is none or it cannot be opened, which is the same to a request."""
    if sealed_key is None:
        return None
    try:
        return ProviderAccount._meta.get_field("api_key").decrypt(bytes(sealed_key)).decode()
    except CryptoError as error:
        log.error("provider_key_unreadable", provider=provider, error=str(error))
        return None


def providers_from_settings() -> list[ProviderSpec]:
    """Return the providers whose keys the settings give."""
    given = (
        ("openai", Dialect.OPENAI, settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY),
        ("anthropic", Dialect.ANTHROPIC, settings.ANTHROPIC_BASE_URL, settings.ANTHROPIC_API_KEY),
        ("azure", Dialect.AZURE, settings.AZURE_OPENAI_ENDPOINT, settings.AZURE_OPENAI_API_KEY),
    )
    return [
        ProviderSpec(name, dialect, base_url, key, price_list=name, serves_all_models=True)
        for name, dialect, base_url, key in given
        if key and base_url
    ]


#: One entry, the whole routing. A changed route or key takes effect everywhere within a second.
cache: TTLCache[None, Routing] = TTLCache(lambda _: load_routing())

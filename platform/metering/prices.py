"""Which price a call is rated with: this desk's own first, then the catalogue's."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

from core.ttl_cache import TTLCache
from metering.cost import compute_cost
from metering.models import Price
from providers.catalogue import ModelRates, PriceEntry, TokenRates, find_price
from providers.tiers import Tier
from providers.types import Usage

PriceOverrides: TypeAlias = Mapping[tuple[str, str], tuple[PriceEntry, ...]]


def price_call(
    provider: str, price_list: str, upstream_model: str, at: datetime, usage: Usage, tier: Tier = Tier.STANDARD
) -> tuple[int, str]:
    """Return the cost in pico-USD and the version of the price.

    Where no price is known both say so: the cost is 0 and the version empty. This desk's own prices hold for every
    tier alike.
    """
    price = price_for(provider, price_list, upstream_model, at)
    return (compute_cost(usage, price.rates, tier), price.version) if price else (0, "")


def price_for(provider: str, price_list: str, upstream_model: str, at: datetime) -> PriceEntry | None:
    """Return the price in effect at a moment; None if nobody knows one."""
    own = next((p for p in _cache.get(None).get((provider, upstream_model), ()) if p.effective_at <= at), None)
    return own or find_price(price_list, upstream_model, at)


def clear_cache() -> None:
    """Load this desk's own prices again when they are next read."""
    _cache.clear()


def _load_overrides(_: None) -> PriceOverrides:
    """Read all own prices, the newest of a model first."""
    found: dict[tuple[str, str], tuple[PriceEntry, ...]] = {}
    for row in Price.objects.order_by("-effective_at"):
        key = (row.provider, row.model)
        found[key] = (*found.get(key, ()), to_price_entry(row))
    return found


def to_price_entry(row: Price) -> PriceEntry:
    """Translate a row. Rates left out are those of what they are a part of."""
    cached = row.input_rate if row.cached_input_rate is None else row.cached_input_rate
    written = row.input_rate if row.cache_write_rate is None else row.cache_write_rate
    written_1h = written if row.cache_write_1h_rate is None else row.cache_write_1h_rate
    rates = ModelRates(TokenRates(row.input_rate, cached, written, written_1h, row.output_rate))
    return PriceEntry(row.provider, row.model, row.effective_at, f"own:{row.id}", rates)


#: One entry, all own prices. A changed price takes effect everywhere within a second.
_cache: TTLCache[None, PriceOverrides] = TTLCache(_load_overrides)

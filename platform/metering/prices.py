"""Price of a call: a price override of this installation if there is one, otherwise the catalogue's price."""

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
    """Return the cost in pico-USD and the version of the price; 0 and an empty version if no price is known.

    A price override applies to every tier alike.
    """
    price = price_for(provider, price_list, upstream_model, at)
    return (compute_cost(usage, price.rates, tier), price.version) if price else (0, "")


def price_for(provider: str, price_list: str, upstream_model: str, at: datetime) -> PriceEntry | None:
    """Return the price in effect at a moment; None if none is known."""
    override = next((p for p in _cache.get(None).get((provider, upstream_model), ()) if p.effective_at <= at), None)
    return override or find_price(price_list, upstream_model, at)


def clear_cache() -> None:
    """Make the next look-up load the price overrides again."""
    _cache.clear()


def _load_overrides(_: None) -> PriceOverrides:
    """Load all price overrides, the newest of a model first."""
    found: dict[tuple[str, str], tuple[PriceEntry, ...]] = {}
    for row in Price.objects.order_by("-effective_at"):
        key = (row.provider, row.model)
        found[key] = (*found.get(key, ()), to_price_entry(row))
    return found


def to_price_entry(row: Price) -> PriceEntry:
    """Convert a row. A rate left empty defaults to the rate of the tokens it is part of."""
    cached = row.input_rate if row.cached_input_rate is None else row.cached_input_rate
    written = row.input_rate if row.cache_write_rate is None else row.cache_write_rate
    written_1h = written if row.cache_write_1h_rate is None else row.cache_write_1h_rate
    rates = ModelRates(TokenRates(row.input_rate, cached, written, written_1h, row.output_rate))
    return PriceEntry(row.provider, row.model, row.effective_at, f"own:{row.id}", rates)


#: One entry: all price overrides. A changed price takes effect in all processes within a second.
_cache: TTLCache[None, PriceOverrides] = TTLCache(_load_overrides)

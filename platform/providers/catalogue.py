"""Catalogue of known models: limits, capabilities and dated prices. Read once from `data/`, then immutable."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from providers.capabilities import Capabilities, capabilities_of
from providers.tiers import Tier
from providers.types import JSONObject

DATA_DIR = Path(__file__).parent / "data"

#: The start of prices whose start date is unknown.
PRICES_BEGIN_AT = datetime(2020, 1, 1, tzinfo=UTC)

#: A multiplier, exact: (11, 10) is 1.1.
Ratio: TypeAlias = tuple[int, int]

#: Vendors name dated snapshots of a model by its name and a date.
_SNAPSHOT = re.compile(r"^(?P<alias>.+?)-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$")

_MICRO = Decimal(1_000_000)

_RATE_FIELDS = (
    "input_per_1m",
    "cached_input_per_1m",
    "cache_write_per_1m",
    "cache_write_1h_per_1m",
    "output_per_1m",
)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model as one vendor serves it. Sizes are in tokens; None if the vendor does not document them."""

    vendor: str
    name: str
    kind: Literal["chat", "embedding"]
    context_window: int
    max_input: int
    max_output: int | None
    capabilities: Capabilities
    #: The day from which the vendor no longer serves it.
    shutdown: date | None


@dataclass(frozen=True, slots=True)
class TokenRates:
    """Integer micro-USD per million tokens. Cached tokens without a price of their own cost as much as other input."""

    input: int
    cached_input: int
    #: Written to the cache for five minutes, and for an hour.
    cache_write: int
    cache_write_1h: int
    output: int


@dataclass(frozen=True, slots=True)
class LongContextRates:
    """Rates of the whole request if its input, cached tokens included, exceeds `above_input_tokens`."""

    above_input_tokens: int
    rates: TokenRates


@dataclass(frozen=True, slots=True)
class ModelRates:
    """Rates of one model. A tier without rates of its own costs as much as the standard tier."""

    standard: TokenRates
    long_context: LongContextRates | None = None
    batch: TokenRates | None = None
    flex: TokenRates | None = None
    priority: TokenRates | None = None
    #: Anthropic: multipliers for inference in the US only, and for fast mode.
    us_only: Ratio = (1, 1)
    fast: Ratio = (1, 1)

    def for_input(self, input_tokens: int, tier: Tier = Tier.STANDARD) -> TokenRates:
        """Return the rates for this many input tokens, cached ones included, before the tier's multiplier."""
        if self.long_context is not None and input_tokens > self.long_context.above_input_tokens:
            return self.long_context.rates
        match tier:
            case Tier.FLEX:
                return self.flex or self.standard
            case Tier.PRIORITY:
                return self.priority or self.standard
            case Tier.BATCH:
                return self.batch or self.standard
            case _:
                return self.standard

    def cost_multiplier(self, tier: Tier) -> Ratio:
        """Return the multiplier on the whole cost of a call."""
        match tier:
            case Tier.FAST:
                return self.fast
            case Tier.US:
                return self.us_only
            case Tier.FAST_US:
                return self.fast[0] * self.us_only[0], self.fast[1] * self.us_only[1]
            case _:
                return (1, 1)


@dataclass(frozen=True, slots=True)
class PriceEntry:
    """A model's rates from `effective_at` until the next entry. `version` names the data that they came from."""

    vendor: str
    model: str
    effective_at: datetime
    version: str
    rates: ModelRates


def list_models() -> tuple[ModelInfo, ...]:
    """Return all models, in the order of the data."""
    return tuple(_catalogue().models.values())


def find_model(vendor: str, name: str) -> ModelInfo | None:
    """Return a vendor's model by its name or by the name of a dated snapshot."""
    found = _catalogue().models
    return found.get((vendor, name)) or found.get((vendor, _strip_snapshot_date(name)))


def find_price(vendor: str, name: str, at: datetime) -> PriceEntry | None:
    """Return the rates of a model, or of a dated snapshot of it, at a moment. None if they are unknown."""
    found = _catalogue().prices
    entries = found.get((vendor, name)) or found.get((vendor, _strip_snapshot_date(name)), ())
    return next((entry for entry in reversed(entries) if entry.effective_at <= at), None)


def vendors_of(model: str) -> tuple[str, ...]:
    """Return the vendors that serve a model or a dated snapshot of it, its maker first."""
    names = (model, _strip_snapshot_date(model))
    return tuple(dict.fromkeys(vendor for vendor, name in _catalogue().models if name in names))


@dataclass(frozen=True, slots=True)
class _Catalogue:
    models: Mapping[tuple[str, str], ModelInfo]
    prices: Mapping[tuple[str, str], tuple[PriceEntry, ...]]


@cache
def _catalogue() -> _Catalogue:
    data = _load("prices.json")
    history = _load("price_history.json")["prices"]
    rows: list[JSONObject] = data["prices"]
    return _Catalogue(
        models={_model_key(row): _to_model_info(row) for row in rows},
        prices={_model_key(row): _price_entries(row, history, data["meta"]["retrieved"]) for row in rows},
    )


def _load(name: str) -> Any:
    # Decimal, because a float cannot hold 0.1 exactly.
    return json.loads((DATA_DIR / name).read_text(), parse_float=Decimal)


def _model_key(row: JSONObject) -> tuple[str, str]:
    return row["provider"], row["model"]


def _strip_snapshot_date(name: str) -> str:
    match = _SNAPSHOT.match(name)
    return match["alias"] if match else name


def _to_model_info(row: JSONObject) -> ModelInfo:
    vendor, name = _model_key(row)
    return ModelInfo(
        vendor=vendor,
        name=name,
        kind=row["kind"],
        context_window=row["context_window"],
        max_input=row.get("max_input") or row["context_window"],
        max_output=row["max_output"],
        capabilities=capabilities_of(vendor, name, row["kind"]),
        shutdown=date.fromisoformat(row["deprecation_date"]) if "deprecation_date" in row else None,
    )


def _price_entries(row: JSONObject, history: list[JSONObject], retrieved: str) -> tuple[PriceEntry, ...]:
    """Return the entries of one model, oldest first. The current rates start when the last superseded ones end."""
    vendor, model = _model_key(row)
    entries: list[PriceEntry] = []
    begins = PRICES_BEGIN_AT
    replaced = sorted(
        (old for old in history if _model_key(old) == _model_key(row)), key=lambda old: str(old["superseded_at"])
    )
    for old in replaced:
        until = old["superseded_at"]
        entries.append(PriceEntry(vendor, model, begins, f"{retrieved}-until-{until}", _to_model_rates(row | old)))
        begins = datetime.fromisoformat(until).replace(tzinfo=UTC)
    return (*entries, PriceEntry(vendor, model, begins, retrieved, _to_model_rates(row)))


def _to_model_rates(row: JSONObject) -> ModelRates:
    long_context = row.get("long_context")
    return ModelRates(
        standard=_token_rates(row),
        long_context=_long_context(long_context) if long_context else None,
        batch=_tier_rates(row, "batch"),
        flex=_tier_rates(row, "flex"),
        priority=_tier_rates(row, "priority"),
        us_only=(11, 10) if row["provider"] == "anthropic" else (1, 1),
        fast=(2, 1) if row["model"] == "claude-opus-5-5" else (1, 1),
    )


def _token_rates(row: JSONObject) -> TokenRates:
    standard = _micro_usd(row["input_per_1m"])
    written = _micro_usd(row.get("cache_write_per_1m"), standard)
    # Anthropic: a cache entry of one hour costs twice the input. Other vendors have none.
    hour = 2 * standard if row.get("cache_write_per_1m") else written
    return TokenRates(
        input=standard,
        cached_input=_micro_usd(row.get("cached_input_per_1m"), standard),
        cache_write=written,
        cache_write_1h=_micro_usd(row.get("cache_write_1h_per_1m"), hour),
        output=_micro_usd(row["output_per_1m"]),
    )


def _long_context(row: JSONObject) -> LongContextRates:
    return LongContextRates(row["above_input_tokens"], _token_rates(row))


def _tier_rates(row: JSONObject, tier: str) -> TokenRates | None:
    """Return the rates of a tier; None if it has none. Missing cache rates scale with the ratio of the input rates."""
    own_input = row.get(f"{tier}_input_per_1m")
    if own_input is None:
        return None
    ratio = Fraction(own_input) / Fraction(row["input_per_1m"])
    scaled = {name: _scale_usd(row[name], ratio) for name in _RATE_FIELDS if row.get(name) is not None}
    own = {name: row[f"{tier}_{name}"] for name in _RATE_FIELDS if row.get(f"{tier}_{name}") is not None}
    return _token_rates({**row, **scaled, **own})


def _scale_usd(usd: Decimal | int, ratio: Fraction) -> Decimal:
    """Return a price in USD times a ratio, rounded to a micro-dollar."""
    return Decimal(round(Fraction(usd) * ratio * int(_MICRO))) / _MICRO


def _micro_usd(usd: Decimal | int | None, default: int | None = None) -> int:
    """Return USD as integer micro-USD. Raises ValueError if the price is finer than that."""
    if usd is None:
        if default is None:
            raise ValueError("A price is missing.")
        return default
    micro = usd * _MICRO
    if micro != int(micro):
        raise ValueError(f"{usd} USD is finer than a micro-dollar.")
    return int(micro)

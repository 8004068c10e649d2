"""Cost of a call, in exact integers (docs/reference/wire-formats.md, 16).

A rate is in micro-USD per million tokens and tokens are whole, so rate x tokens is a whole number of pico-USD.
"""

from decimal import Decimal

from providers.catalogue import ModelRates
from providers.tiers import Tier
from providers.types import Usage

PICO_PER_USD = 10**12


def compute_cost(usage: Usage, rates: ModelRates, tier: Tier = Tier.STANDARD) -> int:
    """Return the cost of one call in pico-USD.

    Cached and cache-written tokens are part of the input, each with its own rate. A long input reprices the
    whole call.
    """
    rate = rates.for_input(usage.input_tokens, tier)
    numerator, denominator = rates.cost_multiplier(tier)
    written_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
    fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    cost = (
        max(fresh, 0) * rate.input
        + usage.cached_input_tokens * rate.cached_input
        + max(written_5m, 0) * rate.cache_write
        + usage.cache_write_1h_tokens * rate.cache_write_1h
        + usage.output_tokens * rate.output
    )
    return cost * numerator // denominator


def format_usd(pico_usd: int) -> str:
    """Format pico-USD as USD, exactly, without an exponent or trailing zeros."""
    text = f"{Decimal(pico_usd) / PICO_PER_USD:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_usd_short(pico_usd: int) -> str:
    """Format pico-USD as USD, rounded: the smaller the amount, the more digits."""
    amount = pico_usd / PICO_PER_USD
    if amount >= 1 or not pico_usd:
        return f"{amount:,.2f}"
    return f"{amount:.{4 if amount >= 0.01 else 6}f}"


def format_usd_full(pico_usd: int) -> str:
    """Format pico-USD as USD with all twelve decimals, as the API does: 123456789 is `0.000123456789`."""
    sign, cost = ("-", -pico_usd) if pico_usd < 0 else ("", pico_usd)
    return f"{sign}{cost // PICO_PER_USD}.{cost % PICO_PER_USD:012d}"

"""Costs are exact. The golden figures were computed by hand from the price lists, not by the code under test."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.cost import compute_cost, format_usd, format_usd_short
from providers.catalogue import ModelRates, TokenRates, find_price
from providers.types import Usage

TODAY = datetime(2026, 11, 21, tzinfo=UTC)
K = 1_000

#: vendor, model, usage, and the cost in USD: rates per million tokens, as printed, times tokens.
GOLDEN: list[tuple[str, str, Usage, str]] = [
    ("openai", "gpt-4o-mini", Usage(1000, 100), "0.00021"),
    ("openai", "gpt-4o-mini", Usage(1, 0), "0.00000015"),
    ("openai", "gpt-4o-mini", Usage(0, 1), "0.0000006"),
    ("openai", "gpt-4o-mini", Usage(10 * K, 500, cached_input_tokens=8 * K), "0.0012"),
    ("openai", "gpt-4o-mini-2024-07-18", Usage(1000, 100), "0.00021"),
    ("openai", "gpt-4o", Usage(123, 456), "0.0048675"),
    ("openai", "gpt-4.1", Usage(1_000_000, 32_768), "2.262144"),
    ("openai", "gpt-4.1-nano", Usage(7, 3), "0.0000019"),
    ("openai", "gpt-5", Usage(50 * K, 2 * K, reasoning_tokens=1500), "0.0825"),
    ("openai", "gpt-5-nano", Usage(333, 777), "0.00032745"),
    ("openai", "gpt-5.4", Usage(272 * K, 1 * K), "0.695"),
    ("openai", "gpt-5.4", Usage(272 * K + 1, 1 * K), "1.382505"),
    ("openai", "gpt-5.6-luna", Usage(4 * K, 1 * K, cache_write_tokens=1 * K), "0.00205"),
    ("openai", "gpt-6-astra", Usage(2 * K, 300, cached_input_tokens=500, cache_write_tokens=500), "0.03175"),
    ("openai", "gpt-6-astra", Usage(300 * K, 10 * K), "6.75"),
    ("openai", "gpt-6.1-sol", Usage(300 * K, 1 * K, cached_input_tokens=100 * K), "0.835"),
    ("openai", "gpt-6-luna", Usage(999, 1), "0.0001004"),
    ("openai", "o3", Usage(1500, 4 * K, reasoning_tokens=3 * K), "0.035"),
    ("openai", "text-embedding-3-small", Usage(8191, 0), "0.00016382"),
    ("openai", "text-embedding-3-large", Usage(1, 0), "0.00000013"),
    ("azure", "text-embedding-3-small", Usage(1000, 0), "0.000022"),
    ("azure", "gpt-4o", Usage(100, 10), "0.00035"),
    ("anthropic", "claude-sonnet-4-6", Usage(12, 6), "0.000126"),
    ("anthropic", "claude-sonnet-4-6", Usage(20 * K, 1 * K, cached_input_tokens=15 * K), "0.0345"),
    ("anthropic", "claude-opus-4-5", Usage(10 * K, 2 * K, cache_write_tokens=4 * K), "0.105"),
    (
        "anthropic", "claude-opus-4-5",
        Usage(10 * K, 2 * K, cache_write_tokens=4 * K, cache_write_1h_tokens=1 * K), "0.10875",
    ),
    ("anthropic", "claude-haiku-4-5", Usage(5555, 333), "0.00722"),
    ("anthropic", "claude-haiku-5-5", Usage(100 * K, 1 * K), "0.0105"),
    ("anthropic", "claude-haiku-5-5", Usage(100 * K + 1, 1 * K), "0.0525005"),
    ("anthropic", "claude-fable-5-1", Usage(8 * K, 4 * K, cached_input_tokens=6 * K), "0.2215"),
    ("anthropic", "claude-sonnet-5-5", Usage(1 * K, 1 * K, cached_input_tokens=1 * K), "0.0101"),
    ("gemini", "gemini-3.1-pro-preview", Usage(200 * K + 1, 100), "0.801804"),
    ("groq", "openai/gpt-oss-20b", Usage(3, 7, cached_input_tokens=1), "0.0000022875"),
    ("mistral", "mistral-large-4", Usage(11, 13), "0.0000693"),
]  # fmt: skip


@pytest.mark.parametrize(("vendor", "model", "usage", "usd"), GOLDEN, ids=lambda value: str(value)[:40])
def test_a_call_costs_what_the_price_list_says(vendor: str, model: str, usage: Usage, usd: str) -> None:
    price = find_price(vendor, model, TODAY)

    assert price is not None
    assert compute_cost(usage, price.rates) == Decimal(usd) * 10**12


def test_there_are_at_least_thirty_golden_vectors() -> None:
    assert len({(vendor, model, usage) for vendor, model, usage, _ in GOLDEN}) >= 30


def test_a_price_applies_from_its_start_date() -> None:
    usage = Usage(1_000_000, 0, cached_input_tokens=1_000_000)
    before = find_price("anthropic", "claude-sonnet-5-5", datetime(2026, 10, 6, 23, 59, tzinfo=UTC))
    after = find_price("anthropic", "claude-sonnet-5-5", datetime(2026, 10, 7, tzinfo=UTC))

    assert before is not None
    assert after is not None
    assert (format_usd(compute_cost(usage, before.rates)), format_usd(compute_cost(usage, after.rates))) == (
        "0.2",
        "0.1",
    )


tokens = st.integers(0, 10**7)


@given(tokens, tokens, tokens, tokens)
def test_a_cost_is_a_whole_number_and_grows_with_every_token(fresh: int, cached: int, written: int, out: int) -> None:
    rates = ModelRates(TokenRates(150_000, 75_000, 187_500, 300_000, 600_000))
    usage = Usage(fresh + cached + written, out, cached, written)

    cost = compute_cost(usage, rates)

    assert cost == fresh * 150_000 + cached * 75_000 + written * 187_500 + out * 600_000
    assert compute_cost(Usage(fresh + cached + written, out + 1, cached, written), rates) == cost + 600_000


@pytest.mark.parametrize(
    ("pico_usd", "usd"),
    [(0, "0"), (1, "0.000000000001"), (210_000_000, "0.00021"), (10**12, "1"), (12 * 10**12 + 5 * 10**11, "12.5"),
     (100 * 10**12, "100"), (9_223_372_036_854_775_807, "9223372.036854775807")],
)  # fmt: skip
def test_usd_are_formatted_exactly(pico_usd: int, usd: str) -> None:
    assert format_usd(pico_usd) == usd


@pytest.mark.parametrize(
    ("pico_usd", "text"),
    [(0, "0.00"), (1_234_567_890_000_000, "1,234.57"), (159_540_000_000, "0.1595"), (40_500_000, "0.000041")],
)
def test_a_short_amount_has_more_digits_the_smaller_it_is(pico_usd: int, text: str) -> None:
    assert format_usd_short(pico_usd) == text

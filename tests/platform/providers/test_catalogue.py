"""The catalogue returns capabilities and exact prices of models, at any moment."""

import json
from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from providers.catalogue import DATA_DIR, ModelRates, find_model, find_price, list_models, vendors_of
from providers.tiers import Tier

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROWS = json.loads((DATA_DIR / "prices.json").read_text(), parse_float=Decimal)["prices"]


def rates(vendor: str, name: str, at: datetime = NOW) -> ModelRates:
    entry = find_price(vendor, name, at)
    assert entry is not None
    return entry.rates


def test_every_data_row_is_a_model_with_a_price() -> None:
    assert len(list_models()) == len(ROWS)
    assert all(find_price(model.vendor, model.name, NOW) for model in list_models())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['provider']}-{row['model']}")
def test_prices_equal_the_data_to_the_micro_dollar(row: dict[str, Decimal]) -> None:
    standard = rates(str(row["provider"]), str(row["model"])).standard

    assert Decimal(standard.input) / 1_000_000 == row["input_per_1m"]
    assert Decimal(standard.output) / 1_000_000 == row["output_per_1m"]
    if row["cached_input_per_1m"] is not None:
        assert Decimal(standard.cached_input) / 1_000_000 == row["cached_input_per_1m"]


def test_a_price_finer_than_a_cent_is_exact() -> None:
    assert rates("groq", "openai/gpt-oss-20b").standard.cached_input == 37_500


@pytest.mark.parametrize(
    ("at", "cached", "version"),
    [
        (datetime(2026, 10, 6, 23, 59, 59, tzinfo=UTC), 200_000, "2026-11-21-until-2026-10-07"),
        (datetime(2026, 10, 7, tzinfo=UTC), 100_000, "2026-11-21"),
        (NOW, 100_000, "2026-11-21"),
    ],
)
def test_find_price_returns_the_price_at_that_moment(at: datetime, cached: int, version: str) -> None:
    entry = find_price("anthropic", "claude-sonnet-5-5", at)

    assert entry is not None
    assert (entry.rates.standard.cached_input, entry.version) == (cached, version)
    assert entry.effective_at <= at


def test_find_price_returns_none_before_the_first_price() -> None:
    assert find_price("openai", "gpt-4o", datetime(2019, 12, 31, tzinfo=UTC)) is None


def test_cached_tokens_without_a_price_cost_as_much_as_input() -> None:
    embedding = rates("openai", "text-embedding-ada-002")

    assert embedding.standard.cached_input == embedding.standard.cache_write == embedding.standard.input == 100_000
    assert embedding.batch is None


def test_anthropic_cache_writes_are_priced_by_lifetime() -> None:
    standard = rates("anthropic", "claude-opus-5-5").standard

    assert (standard.cache_write, standard.cache_write_1h) == (5_000_000, 8_000_000)


@pytest.mark.parametrize(
    ("vendor", "name", "tokens", "expected"),
    [
        ("openai", "gpt-6.1-sol", 272_000, (2_000_000, 100_000, 10_000_000)),
        ("openai", "gpt-6.1-sol", 272_001, (4_000_000, 200_000, 15_000_000)),
        ("anthropic", "claude-haiku-5-5", 100_000, (100_000, 10_000, 500_000)),
        ("anthropic", "claude-haiku-5-5", 100_001, (500_000, 50_000, 2_500_000)),
        ("openai", "gpt-4o", 10**6, (2_500_000, 1_250_000, 10_000_000)),
    ],
)
def test_a_long_context_has_its_own_rates(vendor: str, name: str, tokens: int, expected: tuple[int, ...]) -> None:
    result = rates(vendor, name).for_input(tokens)

    assert (result.input, result.cached_input, result.output) == expected


def test_one_hour_cache_writes_cost_twice_the_input_in_a_long_context_too() -> None:
    assert rates("anthropic", "claude-haiku-5-5").for_input(200_000).cache_write_1h == 1_000_000


def test_other_tiers_and_multipliers_are_exact() -> None:
    opus = rates("anthropic", "claude-opus-5-5")
    luna = rates("openai", "gpt-6-luna")

    assert (opus.us_only, opus.fast) == ((11, 10), (2, 1))
    assert luna.batch is not None
    assert luna.priority is not None
    assert (luna.batch.input, luna.batch.output, luna.priority.input) == (50_000, 250_000, 200_000)


def test_cache_rates_scale_with_the_input_rate_of_a_tier_and_a_tier_without_rates_costs_the_standard_ones() -> None:
    astra, mini = rates("openai", "gpt-6-astra"), rates("openai", "gpt-4o-mini")

    flex = astra.for_input(1000, Tier.FLEX)
    assert (flex.input, flex.output) == (5_000_000, 25_000_000)
    assert (flex.cached_input, flex.cache_write) == (500_000, 6_250_000)
    assert mini.flex is None
    assert mini.for_input(1000, Tier.FLEX) == mini.standard


def test_cost_multipliers_never_leave_a_fraction_of_a_pico_dollar() -> None:
    for entry in (find_price(model.vendor, model.name, NOW) for model in list_models()):
        assert entry is not None
        for tier in Tier:
            numerator, denominator = entry.rates.cost_multiplier(tier)
            rate = entry.rates.for_input(0, tier)
            assert all(value * numerator % denominator == 0 for value in astuple(rate)), (entry.model, tier)


@pytest.mark.parametrize(
    ("vendor", "name", "alias"),
    [
        ("openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("anthropic", "claude-sonnet-5-5-20260101", "claude-sonnet-5-5"),
        ("anthropic", "claude-haiku-4-5-latest", "claude-haiku-4-5"),
        # A row of its own, not a snapshot of another model.
        ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-20250514"),
        ("mistral", "mistral-large-latest", "mistral-large-latest"),
        ("azure", "gpt-4o", "gpt-4o"),
    ],
)
def test_a_dated_snapshot_is_found_as_its_model(vendor: str, name: str, alias: str) -> None:
    result = find_model(vendor, name)

    assert result is not None
    assert (result.vendor, result.name) == (vendor, alias)


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        ("openai", "gpt-7"),
        ("openai", ""),
        ("openai", "gpt-4o-mini-audio-preview"),
        ("openai", "gpt-4o-mini@status=503"),
        ("anthropic", "gpt-4o"),
        ("nobody", "gpt-4o"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc"),
    ],
)
def test_an_unknown_model_is_not_found(vendor: str, name: str) -> None:
    assert find_model(vendor, name) is None
    assert find_price(vendor, name, NOW) is None


@pytest.mark.parametrize(
    ("name", "vendors"),
    [
        ("gpt-4o", ("openai", "azure")),
        ("gpt-4o-2024-08-06", ("openai", "azure")),
        ("claude-sonnet-5-5", ("anthropic",)),
        ("llama-3.1-8b-instant", ("groq",)),
        ("gpt-7", ()),
    ],
)
def test_vendors_of_lists_the_maker_of_a_model_first(name: str, vendors: tuple[str, ...]) -> None:
    assert vendors_of(name) == vendors


def test_a_model_has_limits_and_a_shutdown_date() -> None:
    nano = find_model("openai", "gpt-5-nano")
    small = find_model("openai", "text-embedding-3-small")

    assert nano is not None
    assert small is not None
    assert (nano.context_window, nano.max_input, nano.max_output) == (400_000, 272_000, 128_000)
    assert nano.shutdown == date(2026, 12, 11)
    assert (small.kind, small.max_input, small.max_output, small.shutdown) == ("embedding", 8191, None, None)


def test_price_entries_of_a_model_leave_no_gap() -> None:
    change = datetime(2026, 10, 7, tzinfo=UTC)
    before = find_price("anthropic", "claude-sonnet-5-5", change - timedelta(microseconds=1))
    after = find_price("anthropic", "claude-sonnet-5-5", change)

    assert before is not None
    assert after is not None
    assert before.effective_at < after.effective_at == change
    assert before.rates.standard.output == after.rates.standard.output

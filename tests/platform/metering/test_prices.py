"""A price override replaces the catalogue's price from its start date on."""

from datetime import UTC, datetime
from typing import Any

from metering import prices
from metering.models import Price
from providers.types import Usage

JANUARY, JUNE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
TODAY = datetime(2026, 11, 21, tzinfo=UTC)
USAGE = Usage(1_000_000, 1_000_000, cached_input_tokens=200_000, cache_write_tokens=100_000)


def override(effective_at: datetime, **rates: int) -> Price:
    values = {"input_rate": 100, "output_rate": 10, **rates}
    return Price.objects.create(provider="mine", model="local-model", effective_at=effective_at, **values)


def price(at: datetime, provider: str = "mine", price_list: str = "", model: str = "local-model") -> tuple[int, str]:
    return prices.price_call(provider, price_list, model, at, USAGE)


def test_a_call_without_any_price_has_no_cost_and_no_price_version(db: None) -> None:
    assert price(TODAY) == (0, "")


def test_a_call_without_an_override_has_the_catalogue_price(db: None) -> None:
    cost, version = price(TODAY, "sim-openai", "openai", "gpt-4o-mini")

    assert cost > 0
    assert version.startswith("2026")


def test_an_override_applies_from_its_start_date_and_the_newest_wins(db: None) -> None:
    older, newer = override(JANUARY), override(JUNE, input_rate=200)

    assert price(datetime(2025, 12, 31, tzinfo=UTC)) == (0, "")
    assert price(datetime(2026, 5, 31, tzinfo=UTC)) == (100 * 1_000_000 + 10 * 1_000_000, f"own:{older.id}")
    assert price(TODAY) == (200 * 1_000_000 + 10 * 1_000_000, f"own:{newer.id}")


def test_an_override_takes_precedence_over_the_catalogue(db: None) -> None:
    Price.objects.create(provider="sim-openai", model="gpt-4o-mini", effective_at=JANUARY, input_rate=1, output_rate=1)

    assert price(TODAY, "sim-openai", "openai", "gpt-4o-mini")[0] == 2_000_000


def test_cached_and_cache_written_tokens_have_their_own_rates_if_given(db: None) -> None:
    override(JANUARY, cached_input_rate=5, cache_write_rate=150)

    assert price(TODAY)[0] == 700_000 * 100 + 200_000 * 5 + 100_000 * 150 + 1_000_000 * 10


def test_overrides_are_read_at_most_once_a_second(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for _ in range(50):
            price(TODAY)

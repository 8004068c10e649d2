"""A desk's own price goes before the catalogue's, from its date on."""

from datetime import UTC, datetime
from typing import Any

from metering import prices
from metering.models import Price
from providers.types import Usage

JANUARY, JUNE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
TODAY = datetime(2026, 11, 21, tzinfo=UTC)
USAGE = Usage(1_000_000, 1_000_000, cached_input_tokens=200_000, cache_write_tokens=100_000)


def own(effective_at: datetime, **rates: int) -> Price:
    values = {"input_rate": 100, "output_rate": 10, **rates}
    return Price.objects.create(provider="mine", model="local-model", effective_at=effective_at, **values)


def rated(at: datetime, provider: str = "mine", price_list: str = "", model: str = "local-model") -> tuple[int, str]:
    return prices.price_call(provider, price_list, model, at, USAGE)


def test_without_any_price_the_cost_is_unknown_and_says_so(db: None) -> None:
    assert rated(TODAY) == (0, "")


def test_the_catalogue_rates_what_the_desk_has_no_price_for(db: None) -> None:
    cost, version = rated(TODAY, "sim-openai", "openai", "gpt-4o-mini")

    assert cost > 0
    assert version.startswith("2026")


def test_an_own_price_rates_from_its_date_and_the_newest_wins(db: None) -> None:
    older, newer = own(JANUARY), own(JUNE, input_rate=200)

    assert rated(datetime(2025, 12, 31, tzinfo=UTC)) == (0, "")
    assert rated(datetime(2026, 5, 31, tzinfo=UTC)) == (100 * 1_000_000 + 10 * 1_000_000, f"own:{older.id}")
    assert rated(TODAY) == (200 * 1_000_000 + 10 * 1_000_000, f"own:{newer.id}")


def test_an_own_price_goes_before_the_catalogue_s(db: None) -> None:
    Price.objects.create(provider="sim-openai", model="gpt-4o-mini", effective_at=JANUARY, input_rate=1, output_rate=1)

    assert rated(TODAY, "sim-openai", "openai", "gpt-4o-mini")[0] == 2_000_000


def test_cached_and_written_tokens_have_rates_of_their_own_where_given(db: None) -> None:
    own(JANUARY, cached_input_rate=5, cache_write_rate=150)

    assert rated(TODAY)[0] == 700_000 * 100 + 200_000 * 5 + 100_000 * 150 + 1_000_000 * 10


def test_own_prices_are_read_once_a_second_at_most(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for _ in range(50):
            rated(TODAY)

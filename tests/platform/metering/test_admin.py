"""Admin pages of usage events and price overrides."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core import clock
from core.ids import new_uuid, to_public
from metering.models import Price, UsageEvent
from metering.price_form import to_micro, to_usd_per_million
from metering.prices import price_for
from tenants.models import AuditEntry, Site
from tests.factories import make_site
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

CALLS = "/admin/metering/usageevent/"
PRICES = "/admin/metering/price/"
NOW = timezone.now()


@pytest.fixture
def browser(db: None) -> Client:
    """An operator with all permissions."""
    return sign_in()


def make_call(site: Site, hours_ago: float = 1, **fields: Any) -> UsageEvent:
    defaults = {"provider": "sim-openai", "upstream_model": "gpt-4o-mini", "model": "desk", "outcome": "ok", "call": 1}
    return UsageEvent.objects.create(
        dedupe_key=str(new_uuid()),
        site=site,
        started_at=NOW - timedelta(hours=hours_ago),
        **{**defaults, "price_version": "v1", **fields},
    )


def page(browser: Client, query: str = "") -> str:
    response = browser.get(f"{CALLS}?{query}", follow=True)
    assert response.status_code == 200
    return words(response.content.decode())


def totals(text: str) -> dict[str, str]:
    found = re.search(
        r"Calls (\S+) Billed calls (\S+) Input tokens (\S+) Output tokens (\S+) Billed (\S+) Cost of all calls (\S+)",
        text,
    )
    return (
        dict(zip(("calls", "billed", "in", "out", "billed_usd", "usd"), found.groups(), strict=True)) if found else {}
    )


# Usage events


def test_a_call_is_listed_with_its_exact_cost(browser: Client, site: Site) -> None:
    job_id = new_uuid()
    make_call(
        site,
        job_id=job_id,
        input_tokens=3120,
        output_tokens=214,
        cost_pico_usd=596_400_001,
        tier="priority",
        billable=True,
        http_status=200,
    )

    text = page(browser)

    for fact in ("bakery", "sim-openai", "gpt-4o-mini", "OK", "200", "3,120 → 214", "0.000596400001 priority Billed"):
        assert fact in text
    assert to_public("job", job_id) in browser.get(CALLS).content.decode()


def test_the_list_shows_the_last_24_hours_by_default_with_their_totals(browser: Client, site: Site) -> None:
    make_call(site, billable=True, input_tokens=1000, output_tokens=10, cost_pico_usd=2 * 10**12)
    make_call(site, 23, estimated=True, input_tokens=500, output_tokens=1, cost_pico_usd=5 * 10**11)
    make_call(site, 25, input_tokens=7)

    expected = {"calls": "2", "billed": "1", "in": "1,500", "out": "11", "billed_usd": "$2.00", "usd": "$2.50"}
    assert totals(page(browser)) == expected


def test_the_period_can_be_changed(browser: Client, site: Site) -> None:
    for hours_ago in (1, 25, 24 * 20):
        make_call(site, hours_ago)

    week = f"started_at_from={NOW - timedelta(days=7):%Y-%m-%d}"
    assert totals(page(browser, week))["calls"] == "2"


def test_a_period_over_the_limit_is_listed_without_totals(browser: Client, site: Site) -> None:
    make_call(site, 24 * 90)

    text = page(browser, "started_at_from=2020-01-01")

    assert totals(text) == {}
    assert "1 usage event" in text
    assert "No totals: choose a period of at most 31 days" in text


def test_totals_follow_the_filters(browser: Client, site: Site) -> None:
    make_call(site, provider="a", outcome="error")
    make_call(site, provider="b", billable=True)
    make_call(make_site("florist"), provider="b", estimated=True, tier="flex")

    queries = (
        "provider=a",
        "outcome__exact=error",
        "tier__exact=flex",
        "billable__exact=1",
        "estimated__exact=1",
        f"site__id__exact={site.id}",
    )
    assert [totals(page(browser, query))["calls"] for query in queries] == ["1", "1", "1", "1", "1", "2"]


def test_a_search_is_not_limited_to_the_last_day(browser: Client, site: Site) -> None:
    job_id = new_uuid()
    make_call(site, 24 * 9, job_id=job_id)
    make_call(site, 24 * 9, request_id="req_1")
    make_call(make_site("florist"), 24 * 9)

    assert all("1 usage event" in page(browser, f"q={word}") for word in (to_public("job", job_id), "req_1"))
    assert "2 usage events" in page(browser, f"q={site.public_id}")


def test_a_call_without_a_price_shows_no_price(browser: Client, site: Site) -> None:
    make_call(site, price_version="", input_tokens=4)

    assert "no price" in page(browser)


def test_the_number_of_queries_does_not_grow_with_the_number_of_calls(browser: Client, site: Site) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            page(browser)
        return len(queries)

    make_call(site)
    count()
    few = count()
    for number in range(20):
        make_call(make_site(f"site-{number}"))

    assert count() == few


def test_the_page_of_a_call_is_read_only(browser: Client, site: Site) -> None:
    call = make_call(site, job_id=new_uuid(), error_kind="unavailable", cost_pico_usd=10**6, reasoning_tokens=77)

    text = words(browser.get(f"{CALLS}{call.id}/change/").content.decode())

    assert all(fact in text for fact in ("unavailable", "0.000001", "77", call.dedupe_key))
    assert browser.post(f"{CALLS}{call.id}/change/", {"cost_pico_usd": 0}).status_code == 403
    assert browser.get(f"{CALLS}add/").status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "provider=%00",
        "outcome__exact=%00",
        "started_at_from=%00",
        "started_at_from=x&started_at_to=9999-12-31",
        "billable__exact=perhaps",
        "site__id__exact=x",
        "q=job_",
        "p=999999",
    ],
)
def test_an_invalid_query_string_shows_the_list(browser: Client, site: Site, query: str) -> None:
    make_call(site)

    page(browser, query)


def test_the_usage_list_requires_its_permission(site: Site) -> None:
    assert sign_in("jobs.view_job").get(CALLS).status_code == 403


# Prices


def form(**fields: str) -> dict[str, str]:
    blank = dict.fromkeys(
        ("effective_at_0", "effective_at_1", "cached_input_usd", "cache_write_usd", "cache_write_1h_usd"), ""
    )
    return {**blank, "provider": "sim", "model": "m", "input_usd": "2.50", "output_usd": "10", **fields}


def split(moment: Any) -> dict[str, str]:
    return {"effective_at_0": f"{moment:%Y-%m-%d}", "effective_at_1": f"{moment:%H:%M:%S}"}


def make_price(days: int, **fields: Any) -> Price:
    defaults = {"provider": "sim", "model": "m", "input_rate": 2_500_000, "output_rate": 10_000_000}
    return Price.objects.create(effective_at=NOW + timedelta(days=days), **{**defaults, **fields})


def test_a_price_is_entered_in_usd_per_million_tokens_and_stored_exactly(browser: Client) -> None:
    browser.post(f"{PRICES}add/", form(cached_input_usd="0.000001", cache_write_1h_usd="4.999999"))

    price = Price.objects.get()
    rates = (price.input_rate, price.cached_input_rate, price.cache_write_rate, price.cache_write_1h_rate)
    assert rates == (2_500_000, 1, None, 4_999_999)
    assert price.output_rate == 10_000_000
    assert abs(price.effective_at - clock.now()) < timedelta(minutes=1)


def test_a_new_price_applies_to_the_next_call(browser: Client, django_capture_on_commit_callbacks: Any) -> None:
    assert price_for("sim", "", "m", NOW + timedelta(hours=1)) is None

    with django_capture_on_commit_callbacks(execute=True):
        browser.post(f"{PRICES}add/", form())

    found = price_for("sim", "", "m", NOW + timedelta(hours=1))
    assert found is not None
    assert found.rates.standard.input == 2_500_000


def test_a_new_price_is_audited(browser: Client) -> None:
    browser.post(f"{PRICES}add/", form())

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject, entry.address) == ("ada", "price.create", "sim/m", "192.0.2.7")
    assert (entry.details["input_usd"], entry.details["output_usd"]) == ("2.5", "10")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_usd": "0.0000001"}, "no more than 6 decimal places"),
        ({"input_usd": "-1"}, "greater than or equal to 0"),
        ({"output_usd": ""}, "required"),
        ({"input_usd": "NaN"}, "Enter a number"),
        ({"input_usd": "1e30"}, "less than or equal to"),
        ({"provider": "a\0b"}, "Null characters"),
        ({"effective_at_0": "2020-01-01", "effective_at_1": "00:00:00"}, "cannot start in the past"),
        ({"effective_at_0": "never", "effective_at_1": "00:00:00"}, "valid date"),
    ],
)
def test_an_invalid_price_is_rejected(browser: Client, fields: dict[str, str], message: str) -> None:
    response = browser.post(f"{PRICES}add/", form(**fields))

    assert message in words(response.content.decode())
    assert not Price.objects.exists()
    assert not AuditEntry.objects.exists()


def test_two_prices_of_a_model_cannot_start_at_the_same_time(browser: Client) -> None:
    price = make_price(3)

    response = browser.post(f"{PRICES}add/", form(**split(price.effective_at.replace(microsecond=0))))
    again = browser.post(f"{PRICES}add/", form(**split(price.effective_at.replace(microsecond=0))))

    assert response.status_code == 302
    assert "already exists" in words(again.content.decode())


def test_a_scheduled_price_can_be_changed_and_deleted(browser: Client) -> None:
    price = make_price(3)

    response = browser.post(f"{PRICES}{price.id}/change/", form(**split(price.effective_at), input_usd="3"))
    assert response.status_code == 302
    price.refresh_from_db()
    assert price.input_rate == 3_000_000

    browser.post(f"{PRICES}{price.id}/delete/", {"post": "yes"})
    assert not Price.objects.exists()
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["price.delete", "price.change"]


def test_the_form_shows_rates_as_they_were_entered(browser: Client) -> None:
    html = browser.get(
        f"{PRICES}{make_price(3, output_rate=100_000_000, cached_input_rate=75_000).id}/change/"
    ).content.decode()

    values = dict(re.findall(r'name="(\w+_usd)" value="([^"]*)"', html))
    assert (values["input_usd"], values["cached_input_usd"], values["output_usd"]) == ("2.5", "0.075", "100")


@pytest.mark.parametrize("days", [-30, 0])
def test_a_price_that_is_or_was_in_effect_cannot_be_changed_or_deleted(browser: Client, days: int) -> None:
    price = make_price(days)
    address = f"{PRICES}{price.id}/"

    assert "cannot be changed or deleted" in words(browser.get(f"{address}change/").content.decode())
    assert browser.post(f"{address}change/", form(input_usd="9")).status_code == 403
    assert browser.post(f"{address}delete/", {"post": "yes"}).status_code == 403
    browser.post(PRICES, {"action": "delete_selected", "_selected_action": [str(price.id)], "post": "yes"})
    assert Price.objects.get().input_rate == 2_500_000
    assert not AuditEntry.objects.exists()


def test_the_list_shows_the_state_of_each_price(browser: Client) -> None:
    for days in (-9, -2, 5):
        make_price(days)

    text = words(browser.get(PRICES).content.decode())

    assert re.findall(r"sim m (Scheduled|In effect|Past) ", text) == ["Scheduled", "In effect", "Past"]


def test_prices_require_their_own_permissions() -> None:
    price = make_price(3)
    reader = sign_in("metering.view_price")

    assert reader.get(f"{PRICES}{price.id}/change/").status_code == 200
    assert reader.post(f"{PRICES}{price.id}/change/", form()).status_code == 403
    assert reader.post(f"{PRICES}add/", form()).status_code == 403
    assert sign_in("jobs.view_job", name="bob").get(PRICES).status_code == 403


@pytest.mark.parametrize(
    ("usd", "micro"),
    [("0", 0), ("0.000001", 1), ("2.5", 2_500_000), ("99999.999999", 99_999_999_999), ("100", 100_000_000)],
)
def test_usd_and_micro_usd_are_the_same_amount(usd: str, micro: int) -> None:
    assert to_micro(Decimal(usd)) == micro
    assert f"{to_usd_per_million(micro):f}" == usd

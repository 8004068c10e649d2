"""Which limits apply to a request: a site's own row replaces the row for every site, and the rules are cached."""

import pytest
from django.db import IntegrityError
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from core.database_threads import DatabaseThreadPool
from tenants.models import Limit, LimitKind, Site
from tenants.rate_limiting import rules
from tenants.rate_limiting.windows import SlidingWindow
from tests.factories import make_site

CHAT, EMBEDDINGS = LimitKind.CHAT, LimitKind.EMBEDDINGS


def windows(site: Site, kind: LimitKind = CHAT, model: str = "gpt-4o") -> list[tuple[str, str, int, int]]:
    found = rules.get_limits(site.id).windows_for(kind, model)
    return [(window.name, window.unit, window.limit, window.seconds) for window in found]


def test_without_rows_and_settings_nothing_is_limited(site: Site) -> None:
    assert windows(site) == []
    assert rules.get_limits(site.id).concurrency is None


def test_each_column_is_a_window(site: Site) -> None:
    Limit.objects.create(
        site=site,
        requests_per_minute=1,
        requests_per_hour=2,
        requests_per_day=3,
        tokens_per_minute=4,
        concurrency=5,
    )

    assert windows(site) == [
        ("site", "requests", 1, 60),
        ("site", "requests", 2, 3600),
        ("site", "requests", 3, 86_400),
        ("site", "tokens", 4, 60),
    ]
    assert rules.get_limits(site.id).concurrency == 5


def test_every_matching_row_applies_to_a_request(site: Site) -> None:
    for number, (kind, model) in enumerate([("", ""), ("chat", ""), ("", "gpt-4o"), ("chat", "gpt-4o")], 1):
        Limit.objects.create(site=site, kind=kind, model=model, requests_per_minute=number)

    every = ["site", "kind:chat", "model:gpt-4o", "kind:chat,model:gpt-4o"]
    assert [name for name, *_ in windows(site)] == every
    assert [name for name, *_ in windows(site, CHAT, "other")] == every[:2]
    assert [name for name, *_ in windows(site, EMBEDDINGS)] == ["site", "model:gpt-4o"]


def test_a_sites_own_row_replaces_the_row_for_every_site(site: Site, settings: Settings) -> None:
    settings.DEFAULT_REQUESTS_PER_MINUTE = 9
    other, lax = make_site("florist"), make_site("lax")
    Limit.objects.create(requests_per_minute=100, concurrency=10)
    Limit.objects.create(model="gpt-4o", requests_per_minute=50)
    Limit.objects.create(site=site, tokens_per_minute=7)
    Limit.objects.create(site=lax)

    assert windows(site) == [("site", "tokens", 7, 60), ("model:gpt-4o", "requests", 50, 60)]
    assert rules.get_limits(site.id).concurrency is None
    assert windows(other) == [("site", "requests", 100, 60), ("model:gpt-4o", "requests", 50, 60)]
    assert rules.get_limits(other.id).concurrency == 10
    # A row without limits exempts the site.
    assert windows(lax) == [("model:gpt-4o", "requests", 50, 60)]


def test_the_settings_apply_where_no_row_does(site: Site, settings: Settings) -> None:
    settings.DEFAULT_REQUESTS_PER_MINUTE = 1
    settings.DEFAULT_TOKENS_PER_MINUTE = 2
    settings.DEFAULT_CONCURRENCY = 3
    Limit.objects.create(site=site, kind="chat", requests_per_hour=4)

    assert windows(site) == [
        ("site", "requests", 1, 60),
        ("site", "tokens", 2, 60),
        ("kind:chat", "requests", 4, 3600),
    ]
    assert rules.get_limits(site.id).concurrency == 3


def test_cached_rules_cost_no_query(site: Site, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        known = rules.get_limits(site.id)

    with django_assert_num_queries(0):
        assert rules.get_limits(site.id) is known
    rules.clear_cache()
    with django_assert_num_queries(1):
        rules.get_limits(site.id)


@pytest.mark.django_db(transaction=True)
async def test_an_event_loop_loads_the_rules_in_a_thread(site: Site) -> None:
    threads = DatabaseThreadPool("test", 1)
    try:
        await threads.run(Limit.objects.create, site=site, requests_per_minute=8)
        limits = await rules.get_limits_async(site.id, threads)
    finally:
        threads.close()

    assert limits.windows_for(CHAT, "any") == (SlidingWindow("site", "requests", 8, 60),)
    assert await rules.get_limits_async(site.id, threads) is limits


@pytest.mark.parametrize("fields", [{"requests_per_day": 0}, {"concurrency": 0}, {"kind": "chat", "concurrency": 1}])
def test_postgres_enforces_the_constraints_of_the_form(site: Site, fields: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        Limit.objects.create(site=site, **fields)


def test_postgres_allows_one_row_per_scope_also_for_every_site(db: None) -> None:
    Limit.objects.create(model="gpt-4o", requests_per_day=1)

    with pytest.raises(IntegrityError):
        Limit.objects.create(model="gpt-4o", requests_per_day=2)

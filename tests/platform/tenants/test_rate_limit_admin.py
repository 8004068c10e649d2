"""Limits in the admin: set for a site or for all, in effect at once, written down."""

from typing import Any

import pytest
from django.test import Client

from tenants.models import AuditEntry, Limit, LimitKind, Site
from tenants.rate_limiting import rules
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

LIMITS = "/admin/tenants/limit/"


@pytest.fixture
def browser(site: Site) -> Client:
    return sign_in()


def add(browser: Client, **fields: object) -> str:
    return words(browser.post(f"{LIMITS}add/", fields, follow=True).content.decode())


def test_a_limit_of_a_site_is_set_listed_and_in_effect(
    browser: Client, site: Site, django_capture_on_commit_callbacks: Any
) -> None:
    assert rules.get_limits(site.id).windows_for(LimitKind.CHAT, "gpt-4o") == ()

    with django_capture_on_commit_callbacks(execute=True):
        add(browser, site=site.pk, requests_per_minute=60, concurrency=5)

    limits = rules.get_limits(site.id)
    assert [window.limit for window in limits.windows_for(LimitKind.CHAT, "gpt-4o")] == [60]
    assert limits.concurrency == 5
    assert "Bakery bakery All All 60 – – – 5" in words(browser.get(LIMITS).content.decode())
    entry = AuditEntry.objects.get(action="limit.create")
    assert (entry.site, entry.subject, entry.details) == (site, "bakery", {"requests_per_minute": 60, "concurrency": 5})


def test_a_limit_without_a_site_is_shown_for_every_site(browser: Client) -> None:
    assert "Every site, each separately Chat gpt-4o" in add(browser, kind="chat", model="gpt-4o", tokens_per_minute=9)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"requests_per_minute": 0}, "greater than or equal to 1"),
        ({"tokens_per_minute": 2**31}, "less than or equal to 2147483647"),
        ({"concurrency": 5, "model": "gpt-4o"}, "only be limited for all kinds and models together"),
        ({"model": "x" * 201}, "at most 200 characters"),
    ],
)
def test_an_invalid_limit_is_explained_and_not_stored(browser: Client, fields: dict[str, object], said: str) -> None:
    assert said in add(browser, **fields)

    assert not Limit.objects.exists()


def test_there_is_one_limit_per_scope(browser: Client) -> None:
    add(browser, requests_per_minute=1)

    assert "A limit for this site, kind and model exists already" in add(browser, requests_per_minute=2)
    assert Limit.objects.get().requests_per_minute == 1


def test_a_deleted_limit_is_audited(browser: Client, site: Site) -> None:
    limit = Limit.objects.create(site=site, kind="chat", requests_per_hour=7)

    browser.post(LIMITS, {"action": "delete_selected", "_selected_action": [limit.pk], "post": "yes"})

    assert not Limit.objects.exists()
    entry = AuditEntry.objects.get(action="limit.delete")
    assert (entry.subject, entry.details) == ("bakery chat", {"requests_per_hour": 7})


def test_an_operator_with_view_permission_cannot_change_a_limit(site: Site) -> None:
    limit = Limit.objects.create(requests_per_minute=7)
    reader = sign_in("tenants.view_limit", name="reader")

    assert reader.get(f"{LIMITS}{limit.pk}/change/").status_code == 200
    reader.post(f"{LIMITS}{limit.pk}/change/", {"requests_per_minute": 8})
    assert Limit.objects.get().requests_per_minute == 7
    assert reader.get(f"{LIMITS}add/").status_code == 403

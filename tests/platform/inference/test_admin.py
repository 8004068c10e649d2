"""Providers and routes in the admin. A provider's key goes in and never comes out."""

from typing import Any

import pytest
from django.test import Client

from inference import routing
from inference.models import ProviderAccount, Route, RouteTarget
from tenants.models import AuditEntry
from tests.factories import make_provider, make_route
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

PROVIDERS = "/admin/inference/provideraccount/"
ROUTES = "/admin/inference/route/"
KEY = "sk-proj-very-secret-key-9876"


@pytest.fixture
def browser(db: None) -> Client:
    """An operator who may do everything."""
    return sign_in()


def form(**fields: str) -> dict[str, str]:
    wanted = {
        "name": "openai",
        "dialect": "openai",
        "base_url": "https://api.example.com/v1",
        "price_list": "openai",
        "is_active": "on",
        "api_version": "",
        "new_key": "",
    }
    return {**wanted, **fields}


def make_keyed(**fields: Any) -> ProviderAccount:
    wanted = {"base_url": "https://api.example.com/v1", "api_key": KEY.encode(), "key_hint": "9876"}
    return make_provider("openai", **{**wanted, **fields})


def change(browser: Client, provider: ProviderAccount, **fields: str) -> Any:
    return browser.post(f"{PROVIDERS}{provider.pk}/change/", form(**fields))


def key_of(provider: ProviderAccount) -> str | None:
    provider.refresh_from_db()
    return bytes(provider.api_key).decode() if provider.api_key else None


# The key


def test_a_key_is_entered_and_kept(browser: Client) -> None:
    assert browser.post(f"{PROVIDERS}add/", form(new_key=f" {KEY} ")).status_code == 302

    provider = ProviderAccount.objects.get()
    assert (key_of(provider), provider.key_hint) == (KEY, "9876")


def test_a_key_is_never_shown_again(browser: Client) -> None:
    provider = make_keyed()

    refused = browser.post(f"{PROVIDERS}add/", form(name="", new_key=KEY))
    pages = [browser.get(address) for address in (PROVIDERS, f"{PROVIDERS}{provider.pk}/change/")]

    for page in (*pages, refused, browser.get(f"{PROVIDERS}{provider.pk}/history/")):
        assert page.status_code == 200
        assert KEY not in page.content.decode()
        assert "very-secret" not in page.content.decode()
    assert all("…9876" in words(page.content.decode()) for page in pages)


def test_the_audit_log_says_that_a_key_was_set_and_not_which(browser: Client) -> None:
    browser.post(f"{PROVIDERS}add/", form(new_key=KEY))

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject, entry.address) == (
        "ada",
        "provider.create",
        "openai",
        "192.0.2.7",
    )
    assert (entry.details["key"], entry.details["base_url"]) == ("set", "https://api.example.com/v1")
    assert "9876" not in str(entry.details)


def test_a_cap_on_its_jobs_is_set_and_written_down(browser: Client) -> None:
    provider = make_keyed()

    change(browser, provider, max_running_jobs="20")
    change(browser, provider, max_running_jobs="0")

    assert ProviderAccount.objects.get().max_running_jobs == 20
    assert AuditEntry.objects.get(action="provider.change").details == {"max_running_jobs": [None, 20]}


def test_a_key_left_empty_stays(browser: Client) -> None:
    provider = make_keyed()

    assert change(browser, provider, api_version="2026-01-01").status_code == 302

    assert key_of(provider) == KEY
    assert AuditEntry.objects.get().details == {"api_version": ["", "2026-01-01"]}


def test_a_key_is_replaced_and_removed(browser: Client) -> None:
    provider = make_keyed()

    change(browser, provider, new_key="sk-another-key-1111")
    assert (key_of(provider), provider.key_hint) == ("sk-another-key-1111", "1111")

    change(browser, provider, remove_key="on")
    assert (key_of(provider), provider.key_hint) == (None, "")
    assert [entry.details["key"] for entry in AuditEntry.objects.order_by("id")] == ["set", "removed"]


def test_a_key_does_not_go_to_another_host_unless_it_is_entered_again(browser: Client) -> None:
    provider = make_keyed()
    for elsewhere in ("https://evil.example/v1", "http://api.example.com/v1", "https://api.example.com:444/v1"):
        refused = change(browser, provider, base_url=elsewhere)
        assert "is never sent to a host that it was not entered for" in words(refused.content.decode())
    provider.refresh_from_db()
    assert provider.base_url == "https://api.example.com/v1"

    assert change(browser, provider, base_url="https://api.example.com/v2").status_code == 302
    assert change(browser, provider, base_url="https://new.example/v1", new_key=KEY).status_code == 302
    assert change(browser, provider, base_url="https://third.example/v1", remove_key="on").status_code == 302


def test_a_key_is_not_replaced_and_removed_at_once(browser: Client) -> None:
    provider = make_keyed()

    assert "or remove the old one" in words(
        change(browser, provider, new_key="k" * 20, remove_key="on").content.decode()
    )
    assert key_of(provider) == KEY


@pytest.mark.parametrize("key", ["two words", "schlüssel", "line\nbreak", "k" * 501])
def test_a_key_that_no_header_can_carry_is_refused(browser: Client, key: str) -> None:
    assert browser.post(f"{PROVIDERS}add/", form(new_key=key)).status_code == 200
    assert not ProviderAccount.objects.exists()


def test_a_short_key_gives_no_hint(browser: Client) -> None:
    browser.post(f"{PROVIDERS}add/", form(new_key="short-key"))

    assert ProviderAccount.objects.get().key_hint == ""


def test_pages_open_and_mend_though_the_key_cannot_be_decrypted(browser: Client, settings: Any) -> None:
    provider = make_keyed()
    settings.ENCRYPTION_KEYS = "other:" + "A" * 43 + "="

    assert browser.get(PROVIDERS).status_code == 200
    assert browser.get(f"{PROVIDERS}{provider.pk}/change/").status_code == 200
    assert change(browser, provider, new_key="sk-a-new-key-2222").status_code == 302
    assert key_of(provider) == "sk-a-new-key-2222"


# The rest of a provider


@pytest.mark.parametrize(
    "url",
    [
        "ftp://api.example.com",
        "javascript:alert(1)",
        "https://user:pass@api.example.com/v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1#x",
        "https://",
        "https://api.example.com:99999/v1",
        "https://api.example.com:0/v1",
        "http://[::1",
        "a\0b",
        "",
    ],
)
def test_an_address_that_cannot_be_is_refused(browser: Client, url: str) -> None:
    assert browser.post(f"{PROVIDERS}add/", form(base_url=url)).status_code == 200
    assert not ProviderAccount.objects.exists()


@pytest.mark.parametrize(
    "url",
    ["https://api.example.com/v1/", "http://10.0.0.7:8080/v1", "http://localhost:11434/v1", "http://[::1]:8000/v1"],
)
def test_an_address_is_kept_without_a_slash_at_its_end(browser: Client, url: str) -> None:
    browser.post(f"{PROVIDERS}add/", form(base_url=url))

    assert ProviderAccount.objects.get().base_url == url.rstrip("/")


def test_an_unencrypted_way_for_a_key_is_pointed_out(browser: Client) -> None:
    page = browser.post(f"{PROVIDERS}add/", form(base_url="http://10.0.0.7/v1", new_key=KEY), follow=True)

    assert "the API key are sent unencrypted" in words(page.content.decode())


def test_a_name_is_given_once(browser: Client) -> None:
    provider = make_keyed()

    change(browser, provider, name="renamed")

    assert ProviderAccount.objects.get().name == "openai"


def test_a_change_is_in_effect_at_once(browser: Client, django_capture_on_commit_callbacks: Any) -> None:
    assert routing.get_routing().providers == ()

    with django_capture_on_commit_callbacks(execute=True):
        browser.post(f"{PROVIDERS}add/", form())

    assert [spec.name for spec in routing.get_routing().providers] == ["openai"]


def test_providers_that_the_settings_add_are_named(browser: Client, settings: Any) -> None:
    settings.ANTHROPIC_API_KEY = "sk-ant-of-the-environment"
    routing.invalidate_cache()

    html = browser.get(PROVIDERS).content.decode()

    assert "Also active, from environment variables: anthropic" in words(html)
    assert "sk-ant-of-the-environment" not in html


def test_a_provider_that_routes_need_is_not_deleted(browser: Client) -> None:
    provider = make_keyed()
    make_route("desk", (provider, "gpt-4o-mini"))

    browser.post(f"{PROVIDERS}{provider.pk}/delete/", {"post": "yes"})

    assert ProviderAccount.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("way", ["page", "list"])
def test_deleting_a_provider_is_written_down(browser: Client, way: str) -> None:
    provider = make_keyed()

    if way == "page":
        browser.post(f"{PROVIDERS}{provider.pk}/delete/", {"post": "yes"})
    else:
        chosen = {"action": "delete_selected", "_selected_action": [str(provider.pk)], "post": "yes"}
        browser.post(PROVIDERS, chosen)

    assert not ProviderAccount.objects.exists()
    assert (AuditEntry.objects.get().action, AuditEntry.objects.get().subject) == ("provider.delete", "openai")


def test_who_may_only_look_sees_whether_there_is_a_key(db: None) -> None:
    provider = make_keyed()
    reader = sign_in("inference.view_provideraccount")

    html = reader.get(f"{PROVIDERS}{provider.pk}/change/").content.decode()

    assert "…9876" in html
    assert 'name="new_key"' not in html
    assert change(reader, provider, new_key="sk-of-the-reader-1").status_code == 403
    assert key_of(provider) == KEY
    assert sign_in("jobs.view_job", name="bob").get(PROVIDERS).status_code == 403


@pytest.mark.parametrize("query", ["q=%00", "dialect__exact=%00", "is_active__exact=x", "q=%25"])
def test_an_odd_address_breaks_nothing(browser: Client, query: str) -> None:
    make_keyed()

    assert browser.get(f"{PROVIDERS}?{query}", follow=True).status_code == 200
    assert browser.get(f"{ROUTES}?{query}", follow=True).status_code == 200


# Routes


def route_form(*targets: tuple[ProviderAccount, str, int, int], model: str = "desk", **extra: str) -> dict[str, str]:
    rows: dict[str, str] = {}
    for number, (provider, upstream_model, position, weight) in enumerate(targets):
        values = {"provider": provider.pk, "upstream_model": upstream_model, "position": position, "weight": weight}
        rows |= {f"targets-{number}-{name}": str(value) for name, value in values.items()}
    management = {"targets-TOTAL_FORMS": str(len(targets)), "targets-INITIAL_FORMS": "0"}
    return {"model": model, "is_active": "on", **management, **rows, **extra}


def test_a_route_is_made_with_its_targets_in_order(browser: Client, django_capture_on_commit_callbacks: Any) -> None:
    first, second = make_provider("a"), make_provider("b")

    with django_capture_on_commit_callbacks(execute=True):
        browser.post(f"{ROUTES}add/", route_form((second, "gpt-4o", 2, 1), (first, "gpt-4o-mini", 1, 3)))

    targets = routing.get_routing().targets_for("desk")
    assert [(t.provider.name, t.upstream_model, t.weight) for t in targets] == [
        ("a", "gpt-4o-mini", 3),
        ("b", "gpt-4o", 1),
    ]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject) == ("route.create", "desk")
    assert entry.details["targets"] == ["1: a/gpt-4o-mini (weight 3)", "2: b/gpt-4o (weight 1)"]


def test_a_route_is_listed_in_the_order_it_is_asked(browser: Client) -> None:
    make_route("desk", (make_provider("a"), "gpt-4o-mini"), (make_provider("b"), "gpt-4o"))

    assert "desk Active 1. a/gpt-4o-mini 2. b/gpt-4o" in words(browser.get(ROUTES).content.decode())


def test_changed_targets_are_written_down_as_they_now_stand(browser: Client) -> None:
    provider = make_provider("a")
    route = make_route("desk", (provider, "gpt-4o-mini"))
    target = RouteTarget.objects.get()
    extra = {"targets-INITIAL_FORMS": "1", "targets-0-id": str(target.pk), "targets-0-route": str(route.pk)}

    browser.post(f"{ROUTES}{route.pk}/change/", route_form((provider, "gpt-4o", 1, 1), **extra))

    assert RouteTarget.objects.get().upstream_model == "gpt-4o"
    assert AuditEntry.objects.get().details["targets"] == ["1: a/gpt-4o (weight 1)"]


@pytest.mark.parametrize(("position", "weight"), [(1, 0), (-1, 1), (99_999_999, 1)])
def test_a_target_that_cannot_be_is_refused(browser: Client, position: int, weight: int) -> None:
    page = browser.post(f"{ROUTES}add/", route_form((make_provider("a"), "m", position, weight)))

    assert page.status_code == 200
    assert not Route.objects.exists()


def test_a_route_needs_a_target_and_each_only_once(browser: Client) -> None:
    provider = make_provider("a")
    twice = ((provider, "m", 1, 1), (provider, "m", 2, 1))

    for refused in (route_form(), route_form(*twice)):
        assert browser.post(f"{ROUTES}add/", refused).status_code == 200
    assert not Route.objects.exists()
    assert not AuditEntry.objects.exists()


def test_what_will_not_work_as_it_looks_is_pointed_out(browser: Client) -> None:
    off, unpriced = make_provider("off", is_active=False), make_provider("llama", price_list="")

    page = browser.post(f"{ROUTES}add/", route_form((off, "gpt-4o", 1, 1), (unpriced, "my-model", 2, 1)), follow=True)

    text = words(page.content.decode())
    assert "Provider off is inactive, so off/gpt-4o is not used" in text
    assert "There is no price for llama/my-model" in text
    assert "no price for off/gpt-4o" not in text


def test_deleting_a_route_is_written_down(browser: Client) -> None:
    route = make_route("desk", (make_provider("a"), "m"))

    browser.post(f"{ROUTES}{route.pk}/delete/", {"post": "yes"})

    assert not Route.objects.exists()
    assert AuditEntry.objects.get().details["targets"] == ["1: a/m (weight 1)"]

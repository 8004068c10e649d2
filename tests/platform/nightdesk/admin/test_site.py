"""The admin site: no outside hosts, error pages, the menu by permissions."""

import re
from pathlib import Path

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles import finders
from django.test import Client

from tenants.models import Site
from tests.factories import make_job, make_provider, make_route
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

#: Where a page would load something from.
LOADED = re.compile(
    r"""(?:src|href|action|data-src|srcset)\s*=\s*["']([^"']*)|url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)"""
)


def loaded_by(text: str) -> list[str]:
    return ["".join(found).strip() for found in LOADED.findall(text)]


def is_outside(address: str) -> bool:
    return bool(re.match(r"(?i)\s*(?:[a-z][a-z0-9+.-]*:)?//", address))


def pages() -> list[str]:
    """All lists, all add forms, and our own pages."""
    registered = [model._meta for model in admin.site._registry]
    lists = [f"/admin/{meta.app_label}/{meta.model_name}/" for meta in registered]
    own = ["/admin/", "/admin/breakers/", "/admin/streams/"]
    return [*own, *lists, *(f"{address}add/" for address in lists)]


def test_no_page_loads_anything_from_an_outside_host(site: Site) -> None:
    job = make_job(site)
    make_route("desk", (make_provider(), "gpt-4o-mini"))
    browser = sign_in()

    seen = 0
    for address in (*pages(), f"/admin/jobs/job/{job.public_id}/change/", "/admin/password_change/"):
        html = browser.get(address).content.decode()
        assert [found for found in loaded_by(html) if is_outside(found)] == [], address
        seen += len(loaded_by(html))
    assert [found for found in loaded_by(Client().get("/admin/login/").content.decode()) if is_outside(found)] == []
    assert seen > 100


def test_no_style_sheet_or_script_loads_anything_from_an_outside_host() -> None:
    for name in (
        "desk/admin.css",
        "unfold/css/styles.css",
        "unfold/fonts/inter/styles.css",
        "unfold/fonts/material-symbols/styles.css",
    ):
        found = finders.find(name)
        assert isinstance(found, str)
        assert [each for each in loaded_by(Path(found).read_text()) if is_outside(each)] == []


def test_every_page_of_an_empty_desk_renders() -> None:
    browser = sign_in()

    for address in pages():
        assert browser.get(address).status_code in (200, 403), address


def test_nul_in_an_admin_query_is_rejected() -> None:
    browser = sign_in()

    for address in ("/admin/", "/admin/jobs/job/", "/admin/autocomplete/", "/admin/search/", "/admin/auth/user/"):
        assert browser.get(f"{address}?q=%00").headers["Location"] == address
        assert browser.get(f"{address}?%00").headers["Location"] == address


@pytest.mark.parametrize(
    ("address", "status", "title"),
    [("/admin/jobs/job/", 403, "Permission denied"), ("/admin/nowhere/", 404, "Page not found")],
)
def test_403_and_404_are_html_pages(address: str, status: int, title: str) -> None:
    response = sign_in("tenants.view_site").get(address)

    assert (response.status_code, title in words(response.content.decode())) == (status, True)
    assert 'href="/admin/tenants/site/"' in response.content.decode()


def test_unauthenticated_requests_are_redirected_to_the_login() -> None:
    for address in pages():
        assert Client().get(address).headers["Location"].startswith("/admin/login/?next="), address


def test_the_menu_lists_only_pages_that_the_user_may_view() -> None:
    def menu(browser: Client) -> list[str]:
        html = browser.get("/admin/").content.decode()
        found = re.search(r'(?s)id="nav-sidebar-apps".*?</div>\s*<div class="border-t', html)
        assert found
        return re.findall(r'href="(/admin/[^"]*)"', found[0])

    assert menu(sign_in("jobs.view_job", "metering.view_price")) == [
        "/admin/",
        "/admin/jobs/job/",
        "/admin/metering/price/",
    ]
    everything = menu(sign_in(name="bob"))
    assert {"/admin/jobs/workerlease/", "/admin/inference/route/", "/admin/auth/user/"} < set(everything)
    assert {"/admin/breakers/", "/admin/streams/"} < set(everything)


def test_the_forms_of_operators_use_the_theme() -> None:
    browser = sign_in()

    browser.post(
        "/admin/auth/user/add/", {"username": "cleo", "password1": "long-enough-pw-1", "password2": "long-enough-pw-1"}
    )

    assert "cleo" in words(browser.get("/admin/auth/user/").content.decode())


@pytest.mark.parametrize("model", [User, Group])
def test_operators_and_groups_have_the_admin_of_this_project(model: type[User] | type[Group]) -> None:
    assert type(admin.site.get_model_admin(model)).__module__ == "nightdesk.admin.users"


def test_the_login_page_leads_to_the_overview() -> None:
    User.objects.create_superuser("op", password="night-shift-4711")

    page = Client().post("/admin/login/", {"username": "op", "password": "night-shift-4711"})

    assert (page.status_code, page["Location"]) == (302, "/admin/")

"""Menu, style sheet and icon of the admin. The setting `UNFOLD` names these functions."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.text import capfirst

from core.admin_ui.model_admin import can_view
from nightdesk.admin import breakers, live_streams
from nightdesk.admin.live_page import LivePage

#: A model with its symbol, or a live page.
MenuEntry: TypeAlias = tuple[str, str] | LivePage
#: Headings of the menu with their entries. Entries that the user may not view are left out.
MENU: tuple[tuple[str, tuple[MenuEntry, ...]], ...] = (
    (
        "Work",
        (
            ("jobs.Job", "task"),
            ("jobs.Batch", "stacks"),
            ("jobs.Pause", "pause_circle"),
            ("jobs.WorkerLease", "dns"),
            live_streams.PAGE,
        ),
    ),
    ("Webhooks", (("webhooks.Delivery", "send"), ("webhooks.Event", "bolt"), ("webhooks.Endpoint", "webhook"))),
    ("Spend", (("metering.UsageEvent", "receipt_long"), ("metering.Price", "sell"))),
    ("Routing", (("inference.Route", "route"), ("inference.ProviderAccount", "hub"), breakers.PAGE)),
    (
        "Sites",
        (
            ("tenants.Site", "language"),
            ("tenants.Credential", "key"),
            ("tenants.Limit", "speed"),
            ("tenants.AuditEntry", "history"),
        ),
    ),
    ("Operators", (("auth.User", "person"), ("auth.Group", "group"))),
)

#: Titles that are not the plural of the model's name.
TITLES = {"tenants.AuditEntry": "Audit log"}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the menu for this user."""
    home = {"title": "Overview", "icon": "home", "link": reverse("admin:index")}
    groups = [{"title": heading, "items": list(_items(request, entries))} for heading, entries in MENU]
    return [{"items": [home]}, *(group for group in groups if group["items"])]


def _items(request: HttpRequest, entries: tuple[MenuEntry, ...]) -> Iterator[dict[str, str]]:
    for entry in entries:
        if isinstance(entry, LivePage):
            if entry.may_view(request):
                yield {"title": entry.title, "icon": entry.icon, "link": entry.url}
            continue
        label, icon = entry
        model = apps.get_model(label)
        if can_view(admin.site, request, model):
            link = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
            title = TITLES.get(label) or capfirst(str(model._meta.verbose_name_plural))
            yield {"title": title, "icon": icon, "link": link}


def stylesheet(_: HttpRequest) -> str:
    return static("desk/admin.css")


def icon(_: HttpRequest) -> str:
    return static("desk/icon.svg")


def environment(_: HttpRequest) -> list[str] | None:
    """Return the badge of an installation that is not production, so that operators do not mistake it for one."""
    return ["Development", "warning"] if settings.DEBUG else None

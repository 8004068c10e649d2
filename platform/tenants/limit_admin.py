"""Limits of live requests, as operators set them."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import theme
from core.admin import DeskAdmin
from tenants.admission import rules
from tenants.audit import audit
from tenants.models import Limit
from tenants.staff import actor_of

UNLIMITED = "–"
SCOPE_FACTS = ("site", "kind", "model")


@admin.register(Limit)
class LimitAdmin(DeskAdmin[Limit]):
    list_display = ("shown_site", "shown_kind", "shown_model", "per_minute", "per_hour", "per_day", "tokens", "at_once")
    list_filter = (("site", theme.RelatedFilter), ("kind", theme.ChoiceFilter))
    list_select_related = ("site",)
    sortable_by = ()
    search_fields = ("site__slug", "site__name", "model")
    search_help_text = "a part of a site's name, or of a model's"
    autocomplete_fields = ("site",)

    def get_fieldsets(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        scope = (
            "Without a site: every site that has no such limit of its own, each for itself. Without a kind or a model: "
            "all of them together. A request keeps to every limit that is for it. Jobs are not limited here; they wait."
        )
        figures = "In any minute, hour or day, not only in those of the clock. Empty limits nothing."
        return (
            ("For what", {"fields": SCOPE_FACTS, "description": scope}),
            ("At most", {"fields": Limit.FIGURES, "description": figures}),
        )

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Let a site be chosen, but none be made or changed on the way."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._note(request, "limit.change" if change else "limit.create", obj)

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        self._note(request, "limit.delete", obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            self.delete_model(request, limit)

    def _note(self, request: HttpRequest, action: str, limit: Limit) -> None:
        figures = {name: value for name in Limit.FIGURES if (value := getattr(limit, name)) is not None}
        audit(actor_of(request), action, str(limit)[:100], limit.site, figures)
        transaction.on_commit(rules.forget)

    # The columns

    @admin.display(description="Site")
    def shown_site(self, limit: Limit) -> str | SafeString:
        if limit.site is None:
            return "Every site, each for itself"
        return format_html('{} <span class="nd-faint">{}</span>', limit.site.name, limit.site.slug)

    @admin.display(description="Kind")
    def shown_kind(self, limit: Limit) -> str:
        return limit.get_kind_display() or "All"

    @admin.display(description="Model")
    def shown_model(self, limit: Limit) -> str:
        return limit.model or "All"

    @admin.display(description="Requests/min")
    def per_minute(self, limit: Limit) -> str:
        return _shown(limit.requests_per_minute)

    @admin.display(description="Requests/h")
    def per_hour(self, limit: Limit) -> str:
        return _shown(limit.requests_per_hour)

    @admin.display(description="Requests/day")
    def per_day(self, limit: Limit) -> str:
        return _shown(limit.requests_per_day)

    @admin.display(description="Tokens/min")
    def tokens(self, limit: Limit) -> str:
        return _shown(limit.tokens_per_minute)

    @admin.display(description="At once")
    def at_once(self, limit: Limit) -> str:
        return _shown(limit.concurrency)


def _shown(figure: int | None) -> str:
    return UNLIMITED if figure is None else f"{figure:,}"

"""Admin page of rate limits and concurrency limits of live requests."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedModelAdmin
from tenants.audit import audit
from tenants.models import Limit
from tenants.rate_limiting import rules
from tenants.staff import actor_of

SCOPE_FIELDS = ("site", "kind", "model")


@admin.register(Limit)
class LimitAdmin(BoundedModelAdmin[Limit]):
    list_display = (
        "shown_site",
        "shown_kind",
        "shown_model",
        "per_minute",
        "per_hour",
        "per_day",
        "tokens",
        "max_concurrency",
    )
    list_filter = (("site", theme.RelatedFilter), ("kind", theme.ChoiceFilter))
    list_select_related = ("site",)
    sortable_by = ()
    search_fields = ("site__slug", "site__name", "model")
    search_help_text = "site or model"
    autocomplete_fields = ("site",)

    def get_fieldsets(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        scope = (
            "Without a site: applies to every site without its own limit, to each separately. "
            "Without a kind or model: counts all kinds or models together. "
            "A request must satisfy every limit that matches it. Jobs are not rate limited; they are queued."
        )
        figures = "Windows slide: a limit holds for any minute, hour or day. Leave a field empty for no limit."
        return (
            ("Scope", {"fields": SCOPE_FIELDS, "description": scope}),
            ("Limits", {"fields": Limit.LIMIT_FIELDS, "description": figures}),
        )

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer a plain choice of sites, without the buttons to add or change one."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._audit(request, "limit.change" if change else "limit.create", obj)

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        self._audit(request, "limit.delete", obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            self.delete_model(request, limit)

    def _audit(self, request: HttpRequest, action: str, limit: Limit) -> None:
        figures = {name: value for name in Limit.LIMIT_FIELDS if (value := getattr(limit, name)) is not None}
        audit(actor_of(request), action, str(limit)[:100], limit.site, figures)
        transaction.on_commit(rules.clear_cache)

    # The columns

    @admin.display(description="Site")
    def shown_site(self, limit: Limit) -> str | SafeString:
        if limit.site is None:
            return "Every site, each separately"
        return format_html('{} <span class="nd-faint">{}</span>', limit.site.name, limit.site.slug)

    @admin.display(description="Kind")
    def shown_kind(self, limit: Limit) -> str:
        return limit.get_kind_display() or "All"

    @admin.display(description="Model")
    def shown_model(self, limit: Limit) -> str:
        return limit.model or "All"

    @admin.display(description="Requests/min")
    def per_minute(self, limit: Limit) -> str:
        return _format_limit(limit.requests_per_minute)

    @admin.display(description="Requests/h")
    def per_hour(self, limit: Limit) -> str:
        return _format_limit(limit.requests_per_hour)

    @admin.display(description="Requests/day")
    def per_day(self, limit: Limit) -> str:
        return _format_limit(limit.requests_per_day)

    @admin.display(description="Tokens/min")
    def tokens(self, limit: Limit) -> str:
        return _format_limit(limit.tokens_per_minute)

    @admin.display(description="Concurrency")
    def max_concurrency(self, limit: Limit) -> str:
        return _format_limit(limit.concurrency)


def _format_limit(figure: int | None) -> str:
    return NO_VALUE if figure is None else f"{figure:,}"

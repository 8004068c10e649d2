"""Admin pages of providers with their keys, and of routes with their targets."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedModelAdmin
from inference import routing
from inference.models import ProviderAccount, Route, RouteTarget
from inference.provider_form import ProviderForm, holds_key
from metering.prices import price_for
from tenants.audit import audit
from tenants.staff import actor_of

#: The provider's fields in the audit log. The key is not one of them.
AUDITED_PROVIDER_FIELDS = (
    "dialect",
    "base_url",
    "price_list",
    "serves_all_models",
    "api_version",
    "max_running_jobs",
    "is_active",
)


@admin.register(ProviderAccount)
class ProviderAdmin(BoundedModelAdmin[ProviderAccount]):
    form = ProviderForm
    list_display = ("name", "shown_state", "dialect", "base_url", "price_list", "shown_hint")
    list_filter = (("dialect", theme.ChoiceFilter), ("is_active", theme.BooleanFilter))
    search_fields = ("name", "base_url")
    list_before_template = "admin/inference/provideraccount/from_settings.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderAccount]:
        has_key = ExpressionWrapper(Q(api_key__isnull=False), BooleanField())
        return super().get_queryset(request).defer("api_key").annotate(has_key=has_key)

    def get_fieldsets(self, request: HttpRequest, obj: ProviderAccount | None = None) -> Any:
        removable = ("remove_key",) if obj and holds_key(obj) else ()
        key = ("new_key", *removable) if self._may_edit(request, obj) else ("shown_key", "shown_hint")
        return (
            (None, {"fields": ("name", "is_active", "dialect", "base_url", "api_version")}),
            ("Key", {"fields": key}),
            ("Models and prices", {"fields": ("price_list", "serves_all_models")}),
            ("Jobs", {"fields": ("max_running_jobs",)}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: ProviderAccount | None = None) -> Any:
        shown = () if self._may_edit(request, obj) else ("shown_key", "shown_hint")
        # Usage events and prices refer to a provider by its name.
        return ("name", *shown) if obj else shown

    def _may_edit(self, request: HttpRequest, obj: ProviderAccount | None) -> bool:
        return self.has_change_permission(request, obj) if obj else self.has_add_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show above the list the providers that settings add."""
        stored = set(ProviderAccount.objects.filter(is_active=True).values_list("name", flat=True))
        from_settings = [spec.name for spec in routing.providers_from_settings() if spec.name not in stored]
        return super().changelist_view(request, {**(extra_context or {}), "from_settings": from_settings})

    def save_model(self, request: HttpRequest, obj: ProviderAccount, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._audit(request, "provider.change" if change else "provider.create", obj, _changes(obj, form, change))
        if obj.key_hint and obj.base_url.startswith("http://"):
            self.message_user(
                request, "This URL is http://: requests and the API key are sent unencrypted.", messages.WARNING
            )

    def delete_model(self, request: HttpRequest, obj: ProviderAccount) -> None:
        self._audit(request, "provider.delete", obj, {})
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ProviderAccount]) -> None:
        for provider in queryset:
            self.delete_model(request, provider)

    def _audit(self, request: HttpRequest, action: str, provider: ProviderAccount, details: dict[str, Any]) -> None:
        audit(actor_of(request), action, provider.name, details=details)
        transaction.on_commit(routing.invalidate_cache)

    @theme.badge_column("State", {True: "success"})
    def shown_state(self, provider: ProviderAccount) -> tuple[bool, str]:
        return provider.is_active, "Active" if provider.is_active else "Inactive"

    @admin.display(description="Has an API key", boolean=True)
    def shown_key(self, provider: ProviderAccount) -> bool:
        return holds_key(provider)

    @admin.display(description="API key")
    def shown_hint(self, provider: ProviderAccount) -> str:
        if provider.key_hint:
            return f"…{provider.key_hint}"
        return "set" if holds_key(provider) else NO_VALUE


def _changes(provider: ProviderAccount, form: Any, change: bool) -> dict[str, Any]:
    """Return the changed fields, before and after; of the key only whether it was set or removed."""
    names = [name for name in AUDITED_PROVIDER_FIELDS if not change or name in form.changed_data]
    if change:
        facts: dict[str, Any] = {name: [form.initial.get(name), getattr(provider, name)] for name in names}
    else:
        facts = {name: getattr(provider, name) for name in names}
    if form.cleaned_data.get("new_key"):
        facts["key"] = "set"
    elif form.cleaned_data.get("remove_key"):
        facts["key"] = "removed"
    return facts


class TargetInline(theme.TabularInline[RouteTarget, Route]):
    model = RouteTarget
    fields = ("position", "weight", "provider", "upstream_model")
    extra = 0
    min_num = 1
    verbose_name_plural = "Targets (lower positions are tried first; targets of one position share the load by weight)"

    def get_formset(self, request: HttpRequest, obj: Route | None = None, **kwargs: Any) -> Any:
        return super().get_formset(request, obj, validate_min=True, **kwargs)


@admin.register(Route)
class RouteAdmin(BoundedModelAdmin[Route]):
    list_display = ("model", "shown_state", "ordered_targets")
    list_filter = (("is_active", theme.BooleanFilter),)
    search_fields = ("model",)
    inlines = (TargetInline,)
    fields = ("model", "is_active")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        return super().get_queryset(request).prefetch_related("targets__provider")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        # Read again: the form set holds the targets as they were before.
        targets = list(RouteTarget.objects.filter(route=form.instance).select_related("provider"))
        self._audit(request, "route.change" if change else "route.create", form.instance, targets)
        self._warn(request, targets)

    def delete_model(self, request: HttpRequest, obj: Route) -> None:
        self._audit(request, "route.delete", obj, list(obj.targets.select_related("provider")))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Route]) -> None:
        for route in queryset:
            self.delete_model(request, route)

    def _audit(self, request: HttpRequest, action: str, route: Route, targets: list[RouteTarget]) -> None:
        ordered = [f"{t.position}: {t} (weight {t.weight})" for t in targets]
        audit(actor_of(request), action, route.model, details={"is_active": route.is_active, "targets": ordered})
        transaction.on_commit(routing.invalidate_cache)

    def _warn(self, request: HttpRequest, targets: list[RouteTarget]) -> None:
        """Warn of targets that are not used, or whose calls have no price."""
        for target in targets:
            provider = target.provider
            if not provider.is_active:
                self.message_user(
                    request, f"Provider {provider.name} is inactive, so {target} is not used.", messages.WARNING
                )
            if price_for(provider.name, provider.price_list, target.upstream_model, clock.now()) is None:
                self.message_user(
                    request,
                    f"There is no price for {target}, so its calls are recorded at zero cost. Add one under Prices.",
                    messages.WARNING,
                )

    @theme.badge_column("State", {True: "success"})
    def shown_state(self, route: Route) -> tuple[bool, str]:
        return route.is_active, "Active" if route.is_active else "Inactive"

    @admin.display(description="Target order")
    def ordered_targets(self, route: Route) -> SafeString:
        targets = ((t.position, str(t)) for t in route.targets.all())
        return format_html_join(mark_safe("<br>"), '{}. <span class="nd-code">{}</span>', targets)

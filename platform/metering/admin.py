"""Admin of usage events (read only, with totals) and of price overrides."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedModelAdmin, PeriodFilter, ReadOnlyAdmin
from core.humanize import format_duration, format_moment
from core.ids import InvalidId, from_public, to_public
from metering import prices
from metering.cost import format_usd, format_usd_short
from metering.models import Price, UsageEvent, UsageOutcome
from metering.price_form import RATE_COLUMNS, PriceForm, to_usd_per_million
from metering.totals import sum_usage
from tenants.audit import audit
from tenants.models import Site
from tenants.staff import actor_of

DAY = timedelta(days=1)
#: Totals are not computed for a longer period.
MAX_TOTALS_PERIOD = timedelta(days=31)

OUTCOME_COLORS = {
    UsageOutcome.OPEN: "primary",
    UsageOutcome.OK: "success",
    UsageOutcome.ERROR: "danger",
    UsageOutcome.TIMEOUT: "warning",
    UsageOutcome.LOST: "warning",
}


class StartedFilter(PeriodFilter):
    """The last 24 hours, unless a period or a search is given."""

    def period(self) -> tuple[datetime | None, datetime | None]:
        begin, end = super().period()
        if begin or end or self.request.GET.get("q"):
            return begin, end
        return clock.now() - DAY, None


class ProviderFilter(theme.TextFilter):
    """One provider by its full name. A list of all names would have to be read from every event."""

    title = "provider"
    parameter_name = "provider"

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin[UsageEvent]):
    list_display = (
        "started",
        "shown_site",
        "shown_provider",
        "shown_outcome",
        "status",
        "tokens",
        "cost",
        "tier",
        "flags",
        "shown_duration",
        "job",
    )
    list_filter = (
        ("started_at", StartedFilter),
        ("site", theme.RelatedFilter),
        ProviderFilter,
        ("outcome", theme.ChoicesFilter),
        ("tier", theme.ChoicesFilter),
        ("billable", theme.BooleanFilter),
        ("estimated", theme.BooleanFilter),
    )
    list_select_related = ("site",)
    list_before_template = "admin/metering/usageevent/totals.html"
    ordering = ("-id",)
    # Any other order would read the whole table.
    sortable_by = ()
    search_fields = ("request_id",)
    search_help_text = "job_…, site_…, or request ID"
    fieldsets = (
        (None, {"fields": ("site", "job", "attempt", "call", "request_id", "dedupe_key")}),
        ("Provider", {"fields": ("provider", "model", "upstream_model", "price_list")}),
        ("Outcome", {"fields": ("outcome", "status", "error_kind", "error_code", "billable", "estimated")}),
        (
            "Tokens",
            {
                "fields": (
                    "input_tokens",
                    "cached_input_tokens",
                    "cache_write_tokens",
                    "cache_write_1h_tokens",
                    "output_tokens",
                    "reasoning_tokens",
                )
            },
        ),
        ("Cost", {"fields": ("cost", "tier", "price_version")}),
        ("Time", {"fields": ("started", "shown_duration", "first_token_ms")}),
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageEvent], search_term: str
    ) -> tuple[QuerySet[UsageEvent], bool]:
        word = search_term.strip()
        return (queryset.filter(_search_filter(word)) if word else queryset), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the totals above the list."""
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", {}) or {}
        if isinstance(response, TemplateResponse) and (listed := context.get("cl")):
            begin, end = _period_of(listed)
            context["period"] = _describe_period(begin, end)
            context["totals"] = _format_totals(listed.queryset) if _can_be_totaled(begin, end) else None
        return response

    # The columns

    @admin.display(description="Started (UTC)")
    def started(self, event: UsageEvent) -> SafeString:
        text = f"{event.started_at:%b %d %H:%M:%S}"
        return format_html('<span class="nd-short" title="{}">{}</span>', format_moment(event.started_at), text)

    @admin.display(description="Site")
    def shown_site(self, event: UsageEvent) -> SafeString:
        return format_html('<span class="nd-cut" title="{}">{}</span>', event.site.name, event.site.slug)

    @admin.display(description="Provider")
    def shown_provider(self, event: UsageEvent) -> SafeString:
        return format_html("{}<br>{}", _short(event.provider), _code(event.upstream_model))

    @theme.badge_column("Outcome", OUTCOME_COLORS)
    def shown_outcome(self, event: UsageEvent) -> tuple[str, str]:
        return event.outcome, event.get_outcome_display()

    @admin.display(description="Tokens")
    def tokens(self, event: UsageEvent) -> SafeString:
        return _short(f"{event.input_tokens:,} → {event.output_tokens:,}")

    @admin.display(description="Cost (USD)")
    def cost(self, event: UsageEvent) -> str:
        if not event.price_version and (event.input_tokens or event.output_tokens):
            return "no price"
        return format_usd(event.cost_pico_usd)

    @theme.badge_column("Flags", {"exact": "success", "estimated": "warning"})
    def flags(self, event: UsageEvent) -> tuple[str, str]:
        labels = [*(["Billed"] if event.billable else []), *(["Estimated"] if event.estimated else [])]
        return "estimated" if event.estimated else "exact", ", ".join(labels) or NO_VALUE

    @admin.display(description="Duration")
    def shown_duration(self, event: UsageEvent) -> SafeString:
        return _short(
            NO_VALUE if event.duration_ms is None else format_duration(timedelta(milliseconds=event.duration_ms))
        )

    @admin.display(description="HTTP")
    def status(self, event: UsageEvent) -> str:
        return NO_VALUE if event.http_status is None else str(event.http_status)

    @admin.display(description="Job")
    def job(self, event: UsageEvent) -> SafeString | str:
        if event.job_id is None:
            return NO_VALUE
        public_id = to_public("job", event.job_id)
        page = reverse("admin:jobs_job_change", args=(public_id,))
        # The last digits: ids begin with their time, so the first digits of recent jobs are all alike.
        return format_html('<a class="nd-link nd-id" href="{}" title="{}">…{}</a>', page, public_id, public_id[-8:])


def _short(text: str) -> SafeString:
    return format_html('<span class="nd-short">{}</span>', text)


def _code(text: str) -> SafeString:
    return format_html('<span class="nd-code nd-short">{}</span>', text)


def _search_filter(word: str) -> Q:
    for prefix, column in (("job", "job_id"), (Site.ID_PREFIX, "site")):
        try:
            return Q(**{column: from_public(prefix, word)})
        except InvalidId:
            continue
    return Q(request_id=word)


def _period_of(listed: theme.ChangeList) -> tuple[datetime | None, datetime | None]:
    specs: Any = getattr(listed, "filter_specs", ())
    return next((spec.period() for spec in specs if isinstance(spec, StartedFilter)), (None, None))


def _can_be_totaled(begin: datetime | None, end: datetime | None) -> bool:
    return begin is not None and (end or clock.now()) - begin <= MAX_TOTALS_PERIOD


def _describe_period(begin: datetime | None, end: datetime | None) -> str:
    if begin is None:
        return "Everything" if end is None else f"Before {format_moment(end)}"
    return f"Since {format_moment(begin)}" + (f", before {format_moment(end)}" if end else "")


def _format_totals(events: QuerySet[UsageEvent]) -> dict[str, str] | None:
    found = sum_usage(events)
    if found is None:
        return None
    return {
        "Calls": f"{found.calls:,}",
        "Billed calls": f"{found.billed_calls:,}",
        "Input tokens": f"{found.tokens_in:,}",
        "Output tokens": f"{found.tokens_out:,}",
        "Billed": f"${format_usd_short(found.billed)}",
        "Cost of all calls": f"${format_usd_short(found.cost)}",
    }


# Prices


@admin.register(Price)
class PriceAdmin(BoundedModelAdmin[Price]):
    """A price that is or was in effect cannot be changed: calls were charged with it."""

    form = PriceForm
    list_display = ("provider", "model", "shown_state", "effective", "input_usd", "output_usd")
    list_display_links = ("provider", "model")
    search_fields = ("provider", "model")
    ordering = ("provider", "model", "-effective_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        newer = Price.objects.filter(
            provider=OuterRef("provider"),
            model=OuterRef("model"),
            effective_at__gt=OuterRef("effective_at"),
            effective_at__lte=clock.now(),
        )
        return super().get_queryset(request).annotate(is_replaced=Exists(newer))

    def get_fieldsets(self, request: HttpRequest, obj: Price | None = None) -> Any:
        note = (
            "This price is or was in effect, so it cannot be changed or deleted. "
            "To change the price, add one with a later start."
            if obj and _has_started(obj)
            else "Overrides the provider's list price from its start until the next price of the same provider and "
            "model starts. It cannot be changed once it is in effect."
        )
        return (
            (None, {"fields": ("provider", "model", "effective_at"), "description": note}),
            ("Rates, in USD per million tokens", {"fields": tuple(RATE_COLUMNS)}),
        )

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return super().has_change_permission(request, obj) and not (obj and _has_started(obj))

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and _has_started(obj))

    def save_model(self, request: HttpRequest, obj: Price, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._audit(request, "price.change" if change else "price.create", obj)

    def delete_model(self, request: HttpRequest, obj: Price) -> None:
        self._audit(request, "price.delete", obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Price]) -> None:
        for price in queryset:
            self.delete_model(request, price)

    def _audit(self, request: HttpRequest, action: str, price: Price) -> None:
        rates = {name: str(rate) for name in RATE_COLUMNS if (rate := _rate(price, name)) is not None}
        details = {"effective_at": format_moment(price.effective_at), **rates}
        audit(actor_of(request), action, f"{price.provider}/{price.model}", details=details)
        transaction.on_commit(prices.clear_cache)

    @theme.badge_column("State", {"effect": "success", "future": "info"})
    def shown_state(self, price: Price) -> tuple[str, str]:
        if not _has_started(price):
            return "future", "Scheduled"
        return ("past", "Past") if getattr(price, "is_replaced", False) else ("effect", "In effect")

    @admin.display(description="Starts", ordering="effective_at")
    def effective(self, price: Price) -> str:
        return format_moment(price.effective_at)

    @admin.display(description="Input (USD/M)")
    def input_usd(self, price: Price) -> str:
        return _format_rate(price, "input_usd")

    @admin.display(description="Cached input")
    def cached_input_usd(self, price: Price) -> str:
        return _format_rate(price, "cached_input_usd")

    @admin.display(description="Cache write")
    def cache_write_usd(self, price: Price) -> str:
        return _format_rate(price, "cache_write_usd")

    @admin.display(description="Cache write, 1 h")
    def cache_write_1h_usd(self, price: Price) -> str:
        return _format_rate(price, "cache_write_1h_usd")

    @admin.display(description="Output (USD/M)")
    def output_usd(self, price: Price) -> str:
        return _format_rate(price, "output_usd")


def _has_started(price: Price) -> bool:
    return price.effective_at <= clock.now()


def _rate(price: Price, name: str) -> Decimal | None:
    return to_usd_per_million(getattr(price, RATE_COLUMNS[name]))


def _format_rate(price: Price, name: str) -> str:
    rate = _rate(price, name)
    return NO_VALUE if rate is None else f"{rate:f}"

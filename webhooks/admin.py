"""Endpoints, events and deliveries, as operators see them. What happened is history: it is looked at, never edited."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import BoundedModelAdmin, PeriodFilter, ReadOnlyAdmin
from core.humanize import format_age, format_duration, format_moment
from core.ids import InvalidId, from_public
from core.ssrf_guard import MAX_URL_LENGTH
from tenants.audit import audit
from tenants.staff import actor_of
from webhooks.endpoints import (
    check_endpoint_limit,
    create_endpoint,
    disable_endpoint,
    enable_endpoint,
    rotate_secret,
    validate_endpoint,
)
from webhooks.errors import WebhookError
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint, EndpointSecret, Event

NOTHING = "–"
STATE_COLORS = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.EXHAUSTED: "danger",
}
ID_HELP = "full id: dlv_…, evt_…, ep_…, or of the subject (job_…)"


def parse_any_id(text: str) -> UUID | None:
    """Read a public id of whatever kind; None for other text."""
    try:
        return from_public(text.rpartition("_")[0], text)
    except InvalidId:
        return None


def format_id(public_id: str) -> SafeString:
    return format_html('<span class="nd-id">{}</span>', public_id)


# Endpoints


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    url = forms.URLField(label="URL", max_length=MAX_URL_LENGTH, assume_scheme="https", widget=theme.TextInput)
    event_types = forms.MultipleChoiceField(
        choices=[(name, f"{name}: {meaning}") for name, meaning in EVENT_TYPES.items()],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Select none to receive all events, including types added in later releases.",
    )

    class Meta:
        model = Endpoint
        fields = ("site", "url", "description", "event_types")

    def clean(self) -> dict[str, Any]:
        wanted: dict[str, Any] = super().clean() or {}
        try:
            if "url" in wanted:
                validate_endpoint(wanted["url"], wanted.get("event_types", ()))
            if self.instance._state.adding and "site" in wanted:
                check_endpoint_limit(wanted["site"])
        except WebhookError as error:
            raise ValidationError(str(error)) from error
        return wanted


class SecretInline(theme.TabularInline[EndpointSecret, Endpoint]):
    """When each secret was made and ends. What it is was shown once."""

    model = EndpointSecret
    fields = readonly_fields = ("created_at", "expires_at")
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[EndpointSecret]:
        return super().get_queryset(request).defer("secret")

    def has_add_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return False


@admin.register(Endpoint)
class EndpointAdmin(BoundedModelAdmin[Endpoint]):
    form = EndpointForm
    list_display = ("endpoint", "site", "url", "shown_state", "wants", "pending", "exhausted")
    list_filter = (("site", theme.RelatedFilter), ("is_enabled", theme.BooleanFilter))
    list_select_related = ("site",)
    sortable_by = ("endpoint",)
    search_fields = ("url", "description", "site__slug")
    search_help_text = "ep_…, a part of the URL or the description, or a site"
    actions = ("rotate_selected", "disable_selected", "enable_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        def count_of(state: DeliveryState) -> Coalesce:
            rows = Delivery.objects.filter(endpoint=OuterRef("id"), state=state).order_by().values("endpoint")
            return Coalesce(Subquery(rows.annotate(count=Count("id")).values("count")), 0)

        counts = {state.value: count_of(state) for state in (DeliveryState.PENDING, DeliveryState.EXHAUSTED)}
        return super().get_queryset(request).annotate(**counts)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Endpoint], search_term: str
    ) -> tuple[QuerySet[Endpoint], bool]:
        if (wanted := parse_any_id(search_term.strip())) is not None:
            return queryset.filter(id=wanted), False
        return super().get_search_results(request, queryset, search_term)

    def get_readonly_fields(self, request: HttpRequest, obj: Endpoint | None = None) -> tuple[str, ...]:
        # An endpoint does not change hands: its events and its secret are its site's.
        return () if obj is None else ("site", "is_enabled", "disabled_reason", "created_at")

    def get_inlines(self, request: HttpRequest, obj: Endpoint | None) -> list[Any]:
        return [] if obj is None else [SecretInline]

    def has_delete_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        # It would take the log of its deliveries along; it is disabled instead.
        return False

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        """Store it; a new one's secret is shown now and never again. Django holds the transaction."""
        if change:
            super().save_model(request, obj, form, change)
            audit(actor_of(request), "endpoint.change", obj.public_id, obj.site, {"changed": form.changed_data})
            return
        made, secret = create_endpoint(obj.site, obj.url, obj.description, obj.event_types)
        obj.pk = made.pk
        obj.refresh_from_db()
        audit(actor_of(request), "endpoint.create", made.public_id, made.site)
        self._show(request, made, secret)

    # The columns

    @admin.display(description="Endpoint", ordering="id")
    def endpoint(self, endpoint: Endpoint) -> SafeString:
        return format_id(endpoint.public_id)

    @theme.badge_column("State", {"on": "success", "off": "warning", "stopped": "danger"})
    def shown_state(self, endpoint: Endpoint) -> tuple[str, str]:
        if endpoint.is_enabled:
            return "on", "Enabled"
        return ("stopped", f"Disabled: {endpoint.disabled_reason}") if endpoint.disabled_reason else ("off", "Disabled")

    @admin.display(description="Events")
    def wants(self, endpoint: Endpoint) -> str:
        return ", ".join(endpoint.event_types) or "all"

    @admin.display(description="Pending")
    def pending(self, endpoint: Endpoint) -> str:
        return f"{getattr(endpoint, 'pending', 0):,}"

    @admin.display(description="Failed")
    def exhausted(self, endpoint: Endpoint) -> str:
        return f"{getattr(endpoint, 'exhausted', 0):,}"

    # What can be done

    @admin.action(description="Rotate the secret", permissions=["change"])
    def rotate_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        def rotate(endpoint: Endpoint) -> None:
            self._show(request, endpoint, rotate_secret(endpoint))

        self._act_on(request, queryset, "rotate", rotate)

    @admin.action(description="Disable", permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._act_on(request, queryset.filter(is_enabled=True), "disable", disable_endpoint)

    @admin.action(description="Enable", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._act_on(request, queryset.filter(is_enabled=False), "enable", enable_endpoint)

    def _act_on(
        self, request: HttpRequest, queryset: QuerySet[Endpoint], verb: str, act: Callable[[Endpoint], None]
    ) -> None:
        """Act on each, and write down who did."""
        endpoints = list(queryset)
        with transaction.atomic():
            for endpoint in endpoints:
                act(endpoint)
                audit(actor_of(request), f"endpoint.{verb}", endpoint.public_id, endpoint.site)
        count = len(endpoints)
        self.message_user(request, f"{verb.capitalize()}: {count} endpoint{'' if count == 1 else 's'}.")

    def _show(self, request: HttpRequest, endpoint: Endpoint, secret: str) -> None:
        text = "Secret of {} (shown only once): {}"
        self.message_user(request, format_html(text, endpoint.public_id, secret), messages.WARNING)


# Events


class DeliveryInline(theme.TabularInline[Delivery, Event]):
    model = Delivery
    fields = readonly_fields = ("endpoint", "state", "attempts", "last_status", "last_error", "due_at", "finished_at")
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin[Event]):
    """Payloads are not shown, and so not even opened: a lost key must not close the page."""

    list_display = ("event", "type", "site", "subject_id", "is_terminal", "shown_age")
    list_filter = (("site", theme.RelatedFilter), ("created_at", PeriodFilter))
    list_select_related = ("site",)
    sortable_by = ("event",)
    search_fields = ("type",)
    search_help_text = f"{ID_HELP}, or a type"
    fields = ("public_id", "site", "type", "subject_id", "is_terminal", "created_at")
    inlines = (DeliveryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).defer("payload")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        word = search_term.strip()
        if (wanted := parse_any_id(word)) is not None:
            return queryset.filter(Q(id=wanted) | Q(subject_id=wanted)), False
        return (queryset.filter(type=word) if word else queryset), False

    @admin.display(description="Event", ordering="id")
    def event(self, event: Event) -> SafeString:
        return format_id(event.public_id)

    @admin.display(description="Age")
    def shown_age(self, event: Event) -> SafeString:
        return format_html(
            '<span title="{}">{}</span>', format_moment(event.created_at), format_age(event.created_at, clock.now())
        )


# Deliveries


class AttemptInline(theme.TabularInline[DeliveryAttempt, Delivery]):
    """The delivery log. An attempt that is missing in it was cut by a crash."""

    model = DeliveryAttempt
    verbose_name_plural = "attempts"
    fields = readonly_fields = ("number", "started_at", "took", "status", "error", "response_head")
    ordering = ("number",)
    extra = 0
    can_delete = False

    @admin.display(description="Took")
    def took(self, attempt: DeliveryAttempt) -> str:
        return NOTHING if attempt.duration_ms is None else f"{attempt.duration_ms:,} ms"

    def has_add_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        return False


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    list_display = (
        "delivery",
        "shown_state",
        "event_type",
        "site",
        "url",
        "attempts",
        "last_status",
        "next",
        "last_error",
    )
    list_filter = (("state", theme.ChoicesFilter), ("site", theme.RelatedFilter), ("created_at", PeriodFilter))
    sortable_by = ("delivery",)
    search_fields = ("id",)
    search_help_text = ID_HELP
    fields = (
        "public_id",
        "site",
        "event",
        "endpoint",
        "state",
        "attempts",
        "last_status",
        "last_error",
        "due_at",
        "created_at",
        "finished_at",
    )
    inlines = (AttemptInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).select_related("site", "event", "endpoint").defer("event__payload")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Delivery], search_term: str
    ) -> tuple[QuerySet[Delivery], bool]:
        word = search_term.strip()
        if not word:
            return queryset, False
        wanted = parse_any_id(word)
        meant = Q(id=wanted) | Q(event=wanted) | Q(endpoint=wanted) | Q(event__subject_id=wanted)
        return (queryset.none() if wanted is None else queryset.filter(meant)), False

    @admin.display(description="Delivery", ordering="id")
    def delivery(self, delivery: Delivery) -> SafeString:
        return format_id(delivery.public_id)

    @theme.badge_column("State", STATE_COLORS)
    def shown_state(self, delivery: Delivery) -> tuple[str, str]:
        return delivery.state, delivery.get_state_display()

    @admin.display(description="Event")
    def event_type(self, delivery: Delivery) -> str:
        return delivery.event.type

    @admin.display(description="URL")
    def url(self, delivery: Delivery) -> str:
        return delivery.endpoint.url

    @admin.display(description="Next attempt")
    def next(self, delivery: Delivery) -> str:
        if delivery.due_at is None:
            return NOTHING
        left = delivery.due_at - clock.now()
        return f"in {format_duration(left)}" if left.total_seconds() > 0 else "now"

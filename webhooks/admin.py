"""Admin pages of endpoints, events and deliveries. Events and deliveries are history, so they are read-only."""

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
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedModelAdmin, PeriodFilter, ReadOnlyAdmin, format_public_id
from core.humanize import format_age, format_duration, format_moment
from core.ids import InvalidId, from_public, to_public
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

STATE_COLORS = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.EXHAUSTED: "danger",
}
#: Subjects of events that have a page of their own.
SUBJECTS_WITH_PAGE = ("job", "batch")
ID_HELP = "ID: dlv_…, evt_…, ep_…, job_…, batch_…"


def parse_any_id(text: str) -> UUID | None:
    """Read a public id of any kind; None for other text."""
    try:
        return from_public(text.rpartition("_")[0], text)
    except InvalidId:
        return None


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
        cleaned: dict[str, Any] = super().clean() or {}
        try:
            if "url" in cleaned:
                validate_endpoint(cleaned["url"], cleaned.get("event_types", ()))
            if self.instance._state.adding and "site" in cleaned:
                check_endpoint_limit(cleaned["site"])
        except WebhookError as error:
            raise ValidationError(str(error)) from error
        return cleaned


class SecretInline(theme.TabularInline[EndpointSecret, Endpoint]):
    """When each signing secret was created and when it expires. The secret itself was shown once."""

    model = EndpointSecret
    verbose_name_plural = "signing secrets"
    fields = readonly_fields = ("created_at", "expires_at")
    extra = 0
    can_delete = False
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[EndpointSecret]:
        return super().get_queryset(request).defer("secret")

    def has_add_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        return False


@admin.register(Endpoint)
class EndpointAdmin(BoundedModelAdmin[Endpoint]):
    form = EndpointForm
    list_display = ("endpoint", "site", "url", "shown_state", "subscribed_types", "pending", "exhausted")
    list_filter = (("site", theme.RelatedFilter), ("is_enabled", theme.BooleanFilter))
    list_select_related = ("site",)
    sortable_by = ("endpoint",)
    search_fields = ("url", "description", "site__slug")
    search_help_text = "ep_…, URL, description or site"
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
        if (row_id := parse_any_id(search_term.strip())) is not None:
            return queryset.filter(id=row_id), False
        return super().get_search_results(request, queryset, search_term)

    def get_readonly_fields(self, request: HttpRequest, obj: Endpoint | None = None) -> tuple[str, ...]:
        # The site cannot be changed: events and secrets of the endpoint belong to its site.
        return () if obj is None else ("public_id", "site", "is_enabled", "disabled_reason", "created_at")

    def get_inlines(self, request: HttpRequest, obj: Endpoint | None) -> list[Any]:
        return [] if obj is None else [SecretInline]

    def has_delete_permission(self, request: HttpRequest, obj: Endpoint | None = None) -> bool:
        # Deleting it would delete its delivery log; disable it instead.
        return False

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        """Store the endpoint. A new one's secret is shown once, now. Runs in Django's transaction."""
        if change:
            super().save_model(request, obj, form, change)
            audit(actor_of(request), "endpoint.change", obj.public_id, obj.site, {"changed": form.changed_data})
            return
        created, secret = create_endpoint(obj.site, obj.url, obj.description, obj.event_types)
        obj.pk = created.pk
        obj.refresh_from_db()
        audit(actor_of(request), "endpoint.create", created.public_id, created.site)
        self._show(request, created, secret)

    # The columns

    @admin.display(description="Endpoint", ordering="id")
    def endpoint(self, endpoint: Endpoint) -> SafeString:
        return format_public_id(endpoint.public_id)

    @theme.badge_column("State", {"on": "success", "off": "warning", "stopped": "danger"})
    def shown_state(self, endpoint: Endpoint) -> tuple[str, str]:
        if endpoint.is_enabled:
            return "on", "Enabled"
        return ("stopped", f"Disabled: {endpoint.disabled_reason}") if endpoint.disabled_reason else ("off", "Disabled")

    @admin.display(description="Events")
    def subscribed_types(self, endpoint: Endpoint) -> str:
        return ", ".join(endpoint.event_types) or "all"

    @admin.display(description="Pending")
    def pending(self, endpoint: Endpoint) -> str:
        return f"{getattr(endpoint, 'pending', 0):,}"

    @admin.display(description="Failed")
    def exhausted(self, endpoint: Endpoint) -> str:
        return f"{getattr(endpoint, 'exhausted', 0):,}"

    # What can be done

    @admin.action(description="Rotate the signing secret", permissions=["change"])
    def rotate_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        def rotate(endpoint: Endpoint) -> None:
            self._show(request, endpoint, rotate_secret(endpoint))

        self._act_on(request, queryset, "rotate", "Rotated the secret of", rotate)

    @admin.action(description="Disable", permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._act_on(request, queryset.filter(is_enabled=True), "disable", "Disabled", disable_endpoint)

    @admin.action(description="Enable", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._act_on(request, queryset.filter(is_enabled=False), "enable", "Enabled", enable_endpoint)

    def _act_on(
        self,
        request: HttpRequest,
        queryset: QuerySet[Endpoint],
        verb: str,
        done: str,
        act: Callable[[Endpoint], None],
    ) -> None:
        """Act on each endpoint, and write one audit log entry for each."""
        endpoints = list(queryset)
        with transaction.atomic():
            for endpoint in endpoints:
                act(endpoint)
                audit(actor_of(request), f"endpoint.{verb}", endpoint.public_id, endpoint.site)
        count = len(endpoints)
        self.message_user(request, f"{done} {count} endpoint{'' if count == 1 else 's'}.")

    def _show(self, request: HttpRequest, endpoint: Endpoint, secret: str) -> None:
        text = "Signing secret of {} (shown only once): {}"
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
    """Payloads are neither shown nor decrypted, so the page works even when an encryption key is lost."""

    list_display = ("event", "type", "site", "subject", "is_terminal", "shown_age")
    list_filter = (("site", theme.RelatedFilter), ("created_at", PeriodFilter))
    list_select_related = ("site",)
    sortable_by = ("event",)
    search_fields = ("type",)
    search_help_text = f"{ID_HELP}, or event type"
    fields = ("public_id", "site", "type", "subject", "is_terminal", "created_at")
    inlines = (DeliveryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).defer("payload")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        word = search_term.strip()
        if (row_id := parse_any_id(word)) is not None:
            return queryset.filter(Q(id=row_id) | Q(subject_id=row_id)), False
        return (queryset.filter(type=word) if word else queryset), False

    @admin.display(description="Event", ordering="id")
    def event(self, event: Event) -> SafeString:
        return format_public_id(event.public_id)

    @admin.display(description="Subject")
    def subject(self, event: Event) -> SafeString | str:
        """The public id of the job or batch that the event is about."""
        if event.subject_id is None:
            return NO_VALUE
        kind = event.type.partition(".")[0]
        public_id = to_public(kind, event.subject_id)
        if kind not in SUBJECTS_WITH_PAGE:
            return format_public_id(public_id)
        page = reverse(f"admin:jobs_{kind}_change", args=(public_id,))
        return format_html('<a class="nd-link nd-id" href="{}">{}</a>', page, public_id)

    @admin.display(description="Age")
    def shown_age(self, event: Event) -> SafeString:
        return format_html(
            '<span title="{}">{}</span>', format_moment(event.created_at), format_age(event.created_at, clock.now())
        )


# Deliveries


class AttemptInline(theme.TabularInline[DeliveryAttempt, Delivery]):
    """The delivery log. A number that is missing is an attempt that a crash interrupted."""

    model = DeliveryAttempt
    verbose_name_plural = "attempts"
    fields = readonly_fields = ("number", "started_at", "took", "status", "error", "response_head")
    ordering = ("number",)
    extra = 0
    can_delete = False
    hide_title = True

    @admin.display(description="Took")
    def took(self, attempt: DeliveryAttempt) -> str:
        return NO_VALUE if attempt.duration_ms is None else f"{attempt.duration_ms:,} ms"

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
        "shown_site",
        "url",
        "attempts",
        "shown_status",
        "next",
        "shown_error",
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
        row_id = parse_any_id(word)
        matching = Q(id=row_id) | Q(event=row_id) | Q(endpoint=row_id) | Q(event__subject_id=row_id)
        return (queryset.none() if row_id is None else queryset.filter(matching)), False

    @admin.display(description="Delivery", ordering="id")
    def delivery(self, delivery: Delivery) -> SafeString:
        return format_public_id(delivery.public_id)

    @theme.badge_column("State", STATE_COLORS)
    def shown_state(self, delivery: Delivery) -> tuple[str, str]:
        return delivery.state, delivery.get_state_display()

    @admin.display(description="Site")
    def shown_site(self, delivery: Delivery) -> SafeString:
        return format_html('<span class="nd-cut" title="{}">{}</span>', delivery.site.name, delivery.site.slug)

    @admin.display(description="Event")
    def event_type(self, delivery: Delivery) -> str:
        return delivery.event.type

    @admin.display(description="URL")
    def url(self, delivery: Delivery) -> SafeString:
        return format_html('<span class="nd-cut nd-roomy" title="{0}">{0}</span>', delivery.endpoint.url)

    @admin.display(description="HTTP")
    def shown_status(self, delivery: Delivery) -> str:
        return NO_VALUE if delivery.last_status is None else str(delivery.last_status)

    @admin.display(description="Last error")
    def shown_error(self, delivery: Delivery) -> SafeString:
        text = delivery.last_error or NO_VALUE
        return format_html('<span class="nd-cut" title="{0}">{0}</span>', text)

    @admin.display(description="Next attempt")
    def next(self, delivery: Delivery) -> str:
        if delivery.due_at is None:
            return NO_VALUE
        wait = delivery.due_at - clock.now()
        return f"in {format_duration(wait)}" if wait.total_seconds() > 0 else "now"

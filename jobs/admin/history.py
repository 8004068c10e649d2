"""Webhooks of a job or a batch, and the operator actions on it, as the admin shows them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.admin_ui.model_admin import NO_VALUE
from core.humanize import format_duration, format_moment
from jobs.admin.presentation import Badge, Visibility, due_text
from tenants.models import AuditEntry
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Event

DELIVERY_COLORS = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.EXHAUSTED: "danger",
}
#: The newest events are shown: a batch may send progress events for a day.
MAX_EVENTS = 20
MAX_AUDIT_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class DeliveryAttemptRow:
    number: int
    started: str
    response: str
    duration: str


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    public_id: str
    badge: Badge
    endpoint: str
    response: str
    next_at: str
    attempts: tuple[DeliveryAttemptRow, ...]
    url: str | None


@dataclass(frozen=True, slots=True)
class EventRow:
    public_id: str
    type: str
    at: str
    deliveries: tuple[DeliveryRow, ...]


@dataclass(frozen=True, slots=True)
class AuditRow:
    at: str
    actor: str
    action: str
    address: str
    details: str


def deliveries_of(subject_id: UUID) -> dict[Event, list[Delivery]]:
    """Return the events of a job or batch, oldest first, each with its deliveries and their logs.

    Payloads are not read.
    """
    newest = Event.objects.filter(subject_id=subject_id).defer("payload").order_by("-id")[:MAX_EVENTS]
    by_event: dict[Event, list[Delivery]] = {event: [] for event in reversed(newest)}
    deliveries = Delivery.objects.filter(event__in=list(by_event)).select_related("endpoint").prefetch_related("log")
    by_id = {event.id: event for event in by_event}
    for delivery in deliveries.order_by("id"):
        by_event[by_id[delivery.event_id]].append(delivery)
    return by_event


def event_rows(
    deliveries: Mapping[Event, Sequence[Delivery]], visibility: Visibility, now: datetime
) -> Iterator[EventRow]:
    for event, of_event in deliveries.items():
        rows = tuple(_delivery_row(delivery, visibility, now) for delivery in of_event)
        yield EventRow(event.public_id, event.type, format_moment(event.created_at), rows)


def audit_rows(public_id: str) -> Iterator[AuditRow]:
    """Return the operator actions on a job or batch, newest first."""
    for entry in AuditEntry.objects.filter(subject=public_id).order_by("-id")[:MAX_AUDIT_ENTRIES]:
        yield AuditRow(format_moment(entry.at), entry.actor, entry.action, entry.address or "", _details(entry.details))


def _delivery_row(delivery: Delivery, visibility: Visibility, now: datetime) -> DeliveryRow:
    state = DeliveryState(delivery.state)
    response = f"HTTP {delivery.last_status}" if delivery.last_status else ""
    return DeliveryRow(
        public_id=delivery.public_id,
        badge=Badge(state.label, DELIVERY_COLORS.get(state, "")),
        endpoint=delivery.endpoint.url,
        response=": ".join(filter(None, (response, delivery.last_error))),
        next_at=due_text(delivery.due_at, now) if delivery.due_at else "",
        attempts=tuple(_attempt_row(each) for each in delivery.log.all()),
        url=visibility.link_to(delivery),
    )


def _attempt_row(log: DeliveryAttempt) -> DeliveryAttemptRow:
    status = f"HTTP {log.status}" if log.status else ""
    return DeliveryAttemptRow(
        number=log.number,
        started=format_moment(log.started_at),
        response=": ".join(filter(None, (status, log.error))) or NO_VALUE,
        duration=NO_VALUE if log.duration_ms is None else format_duration(timedelta(milliseconds=log.duration_ms)),
    )


def _details(details: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {_change(value)}" for name, value in details.items())


def _change(value: Any) -> str:
    return " → ".join(map(str, value)) if isinstance(value, list) else str(value)

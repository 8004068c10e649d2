"""What a site was told of a job or a batch, and what operators did to it: both as the admin shows them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.humanize import format_duration, format_moment
from jobs.admin.presentation import DASH, Badge, Visibility, due_text
from tenants.models import AuditEntry
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Event

DELIVERY_COLORS = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.EXHAUSTED: "danger",
}
#: The newest are shown; a batch may tell of its progress for a day.
MAX_EVENTS = 20
MAX_AUDIT_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class DeliveryAttemptRow:
    number: int
    started: str
    answer: str
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
    """Return what was told of a job or batch, oldest first, each event with its deliveries and their log.

    The sealed payloads stay sealed.
    """
    newest = Event.objects.filter(subject_id=subject_id).defer("payload").order_by("-id")[:MAX_EVENTS]
    found: dict[Event, list[Delivery]] = {event: [] for event in reversed(newest)}
    deliveries = Delivery.objects.filter(event__in=list(found)).select_related("endpoint").prefetch_related("log")
    by_id = {event.id: event for event in found}
    for delivery in deliveries.order_by("id"):
        found[by_id[delivery.event_id]].append(delivery)
    return found


def event_rows(
    deliveries: Mapping[Event, Sequence[Delivery]], visibility: Visibility, now: datetime
) -> Iterator[EventRow]:
    for event, found in deliveries.items():
        rows = tuple(_delivery_row(delivery, visibility, now) for delivery in found)
        yield EventRow(event.public_id, event.type, format_moment(event.created_at), rows)


def audit_rows(public_id: str) -> Iterator[AuditRow]:
    """Return what operators did to it, the latest first."""
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
    answer = f"HTTP {log.status}" if log.status else ""
    return DeliveryAttemptRow(
        number=log.number,
        started=format_moment(log.started_at),
        answer=": ".join(filter(None, (answer, log.error))) or DASH,
        duration=DASH if log.duration_ms is None else format_duration(timedelta(milliseconds=log.duration_ms)),
    )


def _details(details: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {_change(value)}" for name, value in details.items())


def _change(value: Any) -> str:
    return " → ".join(map(str, value)) if isinstance(value, list) else str(value)

"""Records events and their deliveries in the caller's transaction: the write side of the transactional outbox."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.transaction import TransactionManagementError

from core import clock
from core.ids import new_uuid, to_public
from webhooks.errors import UnknownEventType
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Delivery, Endpoint, Event
from webhooks.tasks import bell


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record."""

    site_id: UUID
    event_type: str
    #: E.g. the job.
    subject_id: UUID | None
    data: Mapping[str, Any]
    #: It reports that the subject finished; a subject has one such event.
    terminal: bool


def record_event(
    site_id: UUID, event_type: str, subject_id: UUID | None, data: Mapping[str, Any], *, terminal: bool
) -> Event:
    """Record one event; see `record_events`."""
    return record_events([NewEvent(site_id, event_type, subject_id, data, terminal)])[0]


def record_events(new_events: Sequence[NewEvent]) -> list[Event]:
    """Insert the events and their deliveries; the doorbell wakes a courier after commit.

    Raises:
        IntegrityError: a subject would have two final events. The caller's transaction is rolled back, as it must be.
        UnknownEventType: the type is not in `webhooks.event_types`.
        TransactionManagementError: there is no transaction, so an event could be stored without its cause.
    """
    if not transaction.get_connection().in_atomic_block:
        raise TransactionManagementError("Record an event inside the transaction that makes it true.")
    if not new_events:
        return []
    at = clock.now()
    events = Event.objects.bulk_create([_to_event(new_event, at) for new_event in new_events])
    deliveries = Delivery.objects.bulk_create(_deliveries_of(events))
    if deliveries:
        transaction.on_commit(bell.ring)
    return events


def _to_event(new_event: NewEvent, at: datetime) -> Event:
    if new_event.event_type not in EVENT_TYPES:
        raise UnknownEventType(new_event.event_type, list(EVENT_TYPES))
    event_id = new_uuid()
    return Event(
        id=event_id,
        site_id=new_event.site_id,
        type=new_event.event_type,
        subject_id=new_event.subject_id,
        is_terminal=new_event.terminal,
        payload=to_payload(to_public(Event.ID_PREFIX, event_id), new_event.event_type, at, new_event.data),
        created_at=at,
    )


def to_payload(public_id: str, event_type: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed and sent at every attempt. They are encoded once, here."""
    moment = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    payload = {"id": public_id, "type": event_type, "timestamp": moment, "data": data}
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone surrogate in a model's output cannot be encoded in UTF-8; it must not prevent a job from finishing.
    return text.encode("utf-8", errors="replace")


def _deliveries_of(events: Sequence[Event]) -> Iterable[Delivery]:
    endpoints = Endpoint.objects.filter(site__in={event.site_id for event in events}, is_enabled=True)
    subscriptions = list(endpoints.values_list("id", "site_id", "event_types"))
    return [
        Delivery(site_id=event.site_id, event=event, endpoint_id=endpoint_id)
        for event in events
        for endpoint_id, site_id, event_types in subscriptions
        if site_id == event.site_id and (not event_types or event.type in event_types)
    ]

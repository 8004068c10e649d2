"""Recording: an event and its deliveries are part of the transaction that makes the event true."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

from core import clock
from tenants.models import Site
from tests.factories import make_site
from webhooks.endpoints import create_endpoint, disable_endpoint
from webhooks.errors import UnknownEventType
from webhooks.models import Delivery, DeliveryState, Endpoint, Event
from webhooks.record import NewEvent, record_event, record_events

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def record(site: Site, event_type: str = "job.succeeded", **changes: Any) -> Event:
    with transaction.atomic():
        return record_event(
            site.id,
            event_type,
            changes.get("subject_id", uuid4()),
            changes.get("data", {"a": 1}),
            terminal=changes.get("terminal", True),
        )


def test_the_payload_has_id_type_timestamp_and_data(endpoint: Endpoint) -> None:
    with clock.frozen(NOON):
        event = record(endpoint.site, data={"note": "café ✓"})

    event.refresh_from_db()
    assert event.created_at == NOON
    assert (
        event.payload
        == (
            f'{{"id":"{event.public_id}","type":"job.succeeded","timestamp":"2026-11-21T12:00:00.123Z",'
            '"data":{"note":"café ✓"}}'
        ).encode()
    )


def test_the_payload_is_encrypted_in_the_database(endpoint: Endpoint) -> None:
    record(endpoint.site, data={"note": "a secret word"})

    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM webhooks_event")
        assert b"secret word" not in bytes(cursor.fetchone()[0])


@pytest.mark.parametrize(
    ("wanted", "delivered"),
    [([], True), (["job.succeeded"], True), (["job.failed", "job.succeeded"], True), (["job.failed"], False)],
)
def test_an_endpoint_receives_the_event_types_of_its_subscription(
    site: Site, wanted: list[str], delivered: bool
) -> None:
    create_endpoint(site, "https://example.com/hook", event_types=wanted)

    record(site, "job.succeeded")

    assert Delivery.objects.exists() is delivered


def test_every_enabled_endpoint_of_the_site_gets_a_delivery_that_is_due(endpoint: Endpoint) -> None:
    site = endpoint.site
    second, _ = create_endpoint(site, "https://example.com/second")
    disabled, _ = create_endpoint(site, "https://example.com/disabled")
    disable_endpoint(disabled)
    create_endpoint(make_site("butcher"), "https://example.com/other")

    event = record(site)

    assert {delivery.endpoint for delivery in event.deliveries.all()} == {endpoint, second}
    assert {(d.site, d.state, d.attempts) for d in event.deliveries.all()} == {(site, DeliveryState.PENDING, 0)}
    assert all(d.due_at is not None and d.due_at <= clock.now() for d in event.deliveries.all())


def test_the_doorbell_rings_after_commit(
    endpoint: Endpoint, rings: list[str], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        record(endpoint.site)
        assert rings == []

    assert rings == ["ring"]


def test_the_doorbell_does_not_ring_without_a_subscribed_endpoint(
    site: Site, rings: list[str], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        event = record(site)

    assert Event.objects.get() == event
    assert rings == []


def test_a_rolled_back_transaction_records_no_event(endpoint: Endpoint, rings: list[str]) -> None:
    with transaction.atomic():
        record(endpoint.site)
        transaction.set_rollback(True)

    assert not Event.objects.exists()
    assert not Delivery.objects.exists()
    assert rings == []


@pytest.mark.django_db(transaction=True)
def test_recording_outside_a_transaction_raises(site: Site) -> None:
    with pytest.raises(TransactionManagementError):
        record_event(site.id, "job.succeeded", uuid4(), {}, terminal=True)

    assert not Event.objects.exists()


def test_a_subject_has_one_final_event(site: Site) -> None:
    subject = uuid4()
    record(site, "batch.progress", subject_id=subject, terminal=False)
    record(site, "job.succeeded", subject_id=subject)

    with pytest.raises(IntegrityError, match="one_terminal_event_per_subject"):
        record(site, "job.failed", subject_id=subject)

    record(site, "batch.progress", subject_id=subject, terminal=False)
    assert Event.objects.filter(is_terminal=True).get().type == "job.succeeded"


def test_recording_an_unknown_event_type_raises(site: Site) -> None:
    with pytest.raises(UnknownEventType, match=r"no event type 'job\.finished'"):
        record(site, "job.finished")


def test_a_lone_surrogate_does_not_prevent_recording(site: Site) -> None:
    event = record(site, data={"text": "broken \ud83d here", "nul": "\0"})

    event.refresh_from_db()
    assert json.loads(event.payload)["data"] == {"text": "broken ? here", "nul": "\0"}


def test_events_of_several_sites_are_recorded_together(
    endpoint: Endpoint, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    other, _ = create_endpoint(make_site("butcher"), "https://example.com/other")
    wanted = [
        NewEvent(site_id, "job.failed", uuid4(), {}, terminal=True)
        for site_id in (endpoint.site_id, other.site_id, other.site_id)
    ]

    with transaction.atomic(), django_assert_num_queries(3):
        events = record_events(wanted)

    assert [event.site_id for event in events] == [new_event_.site_id for new_event_ in wanted]
    assert (endpoint.deliveries.count(), other.deliveries.count()) == (1, 2)

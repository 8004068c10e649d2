"""Claiming: one statement, one owner, and a lease that expires after a crash."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from core.fields import keyring
from webhooks.claim import CLAIM, ClaimedDelivery, claim_due
from webhooks.endpoints import disable_endpoint, rotate_secret
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointSecret, Event

LEASE = timedelta(seconds=30)
NewEventFactory = Callable[..., Event]


def claim(limit: int = 10) -> list[ClaimedDelivery]:
    return claim_due(limit, LEASE)


def opened(claimed: ClaimedDelivery) -> list[str]:
    return [keyring().decrypt(s, purpose="webhooks_endpointsecret.secret").decode() for s in claimed.sealed_secrets]


def test_a_claim_starts_an_attempt_and_returns_its_data(delivery: Delivery, secret: str) -> None:
    (claimed,) = claim()

    delivery.refresh_from_db()
    assert (claimed.delivery_id, claimed.attempt) == (delivery.id, 1)
    assert (claimed.site_id, claimed.endpoint_id, claimed.event_id) == (
        delivery.site_id,
        delivery.endpoint_id,
        delivery.event_id,
    )
    assert (claimed.url, claimed.is_enabled) == (delivery.endpoint.url, True)
    assert keyring().decrypt(claimed.sealed_payload, purpose="webhooks_event.payload") == delivery.event.payload
    assert opened(claimed) == [secret]
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 1)
    assert delivery.due_at is not None
    assert LEASE - timedelta(seconds=1) < delivery.due_at - claimed.claimed_at <= LEASE


def test_a_claimed_delivery_is_not_due_until_its_lease_expires(delivery: Delivery) -> None:
    assert len(claim()) == 1
    assert claim() == []

    Delivery.objects.update(due_at=Now() - timedelta(seconds=1))

    assert [claimed.attempt for claimed in claim()] == [2]


def test_deliveries_that_are_not_due_or_finished_are_not_claimed(
    endpoint: Endpoint, new_event: NewEventFactory
) -> None:
    Delivery.objects.filter(event=new_event()).update(due_at=Now() + timedelta(seconds=60))
    for state in (DeliveryState.DELIVERED, DeliveryState.EXHAUSTED, DeliveryState.CANCELED):
        Delivery.objects.filter(event=new_event()).update(state=state, due_at=None, finished_at=Now())

    assert claim() == []


def test_the_longest_overdue_are_claimed_first_up_to_the_limit(endpoint: Endpoint, new_event: NewEventFactory) -> None:
    events = [new_event() for _ in range(4)]
    for place, event in zip((3, 1, 4, 2), events, strict=True):
        Delivery.objects.filter(event=event).update(due_at=Now() - timedelta(minutes=10 - place))

    first = {claimed.event_id for claimed in claim(2)}

    assert first == {events[1].id, events[3].id}


def test_a_claim_holds_live_secrets_newest_first(delivery: Delivery, secret: str) -> None:
    second = rotate_secret(delivery.endpoint)
    (claimed,) = claim()
    assert opened(claimed) == [second, secret]

    EndpointSecret.objects.filter(expires_at__isnull=False).update(expires_at=Now() - timedelta(seconds=1))
    Delivery.objects.update(due_at=Now())
    (claimed,) = claim()
    assert opened(claimed) == [second]


def test_a_claim_reports_that_its_endpoint_was_disabled_after_the_event(delivery: Delivery) -> None:
    # As if the event was recorded concurrently with the disabling.
    disable_endpoint(delivery.endpoint)
    Delivery.objects.update(state=DeliveryState.PENDING, due_at=Now(), finished_at=None)

    assert [claimed.is_enabled for claimed in claim()] == [False]


def test_the_repr_of_a_claim_hides_url_payload_and_secret(delivery: Delivery) -> None:
    Endpoint.objects.update(url="https://example.com/?token=hidden")

    (claimed,) = claim()

    assert "hidden" not in repr(claimed)
    assert "sealed" not in repr(claimed)


def test_the_claim_uses_the_index_on_due_deliveries(delivery: Delivery) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + CLAIM, {"limit": 10, "lease": 30})
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "using delivery_due" in plan
    assert "Index Cond: (due_at <=" in plan


@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_another_courier_is_claiming_is_skipped_without_waiting(
    endpoint: Endpoint, new_event: NewEventFactory
) -> None:
    events = {new_event().id for _ in range(2)}
    with ThreadPoolExecutor(1) as other, transaction.atomic():
        (mine,) = claim(1)

        theirs = other.submit(claim_elsewhere, 10).result(timeout=5)

    assert theirs == list(events - {mine.event_id})


@pytest.mark.django_db(transaction=True)
def test_concurrent_claims_never_return_the_same_delivery(endpoint: Endpoint, new_event: NewEventFactory) -> None:
    events = {new_event().id for _ in range(40)}

    with ThreadPoolExecutor(6) as claimers:
        batches = list(claimers.map(claim_elsewhere, [3] * 20))

    taken = [event_id for batch in batches for event_id in batch]
    assert len(taken) == len(set(taken))
    assert set(taken) == events
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def claim_elsewhere(limit: int) -> list[UUID]:
    """Claim over a separate connection, that of this thread."""
    try:
        return [claimed.event_id for claimed in claim(limit)]
    finally:
        connection.close()

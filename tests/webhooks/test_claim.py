"""Claiming: one statement, one owner, and a lease that forgives a crash."""

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
Happens = Callable[..., Event]


def claim(limit: int = 10) -> list[ClaimedDelivery]:
    return claim_due(limit, LEASE)


def opened(claimed: ClaimedDelivery) -> list[str]:
    return [keyring().decrypt(s, purpose="webhooks_endpointsecret.secret").decode() for s in claimed.sealed_secrets]


def test_a_claim_begins_an_attempt_and_carries_all_it_needs(delivery: Delivery, secret: str) -> None:
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


def test_what_is_claimed_is_not_due_until_the_lease_is_over(delivery: Delivery) -> None:
    assert len(claim()) == 1
    assert claim() == []

    Delivery.objects.update(due_at=Now() - timedelta(seconds=1))

    assert [claimed.attempt for claimed in claim()] == [2]


def test_what_is_not_due_or_has_ended_is_left_alone(endpoint: Endpoint, happens: Happens) -> None:
    Delivery.objects.filter(event=happens()).update(due_at=Now() + timedelta(seconds=60))
    for state in (DeliveryState.DELIVERED, DeliveryState.EXHAUSTED, DeliveryState.CANCELED):
        Delivery.objects.filter(event=happens()).update(state=state, due_at=None, finished_at=Now())

    assert claim() == []


def test_the_longest_due_come_first_and_no_more_than_asked(endpoint: Endpoint, happens: Happens) -> None:
    events = [happens() for _ in range(4)]
    for place, event in zip((3, 1, 4, 2), events, strict=True):
        Delivery.objects.filter(event=event).update(due_at=Now() - timedelta(minutes=10 - place))

    first = {claimed.event_id for claimed in claim(2)}

    assert first == {events[1].id, events[3].id}


def test_secrets_come_newest_first_and_expired_ones_not_at_all(delivery: Delivery, secret: str) -> None:
    second = rotate_secret(delivery.endpoint)
    (claimed,) = claim()
    assert opened(claimed) == [second, secret]

    EndpointSecret.objects.filter(expires_at__isnull=False).update(expires_at=Now() - timedelta(seconds=1))
    Delivery.objects.update(due_at=Now())
    (claimed,) = claim()
    assert opened(claimed) == [second]


def test_an_endpoint_that_was_disabled_meanwhile_is_told_as_such(delivery: Delivery) -> None:
    # As if the event had been recorded while the endpoint was being disabled.
    disable_endpoint(delivery.endpoint)
    Delivery.objects.update(state=DeliveryState.PENDING, due_at=Now(), finished_at=None)

    assert [claimed.is_enabled for claimed in claim()] == [False]


def test_a_claim_shows_neither_url_nor_payload_nor_secret(delivery: Delivery) -> None:
    Endpoint.objects.update(url="https://example.com/?token=hidden")

    (claimed,) = claim()

    assert "hidden" not in repr(claimed)
    assert "sealed" not in repr(claimed)


def test_the_claim_finds_what_is_due_through_its_index(delivery: Delivery) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + CLAIM, {"limit": 10, "lease": 30})
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "using delivery_due" in plan
    assert "Index Cond: (due_at <=" in plan


@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_somebody_is_claiming_is_skipped_and_not_waited_for(
    endpoint: Endpoint, happens: Happens
) -> None:
    events = {happens().id for _ in range(2)}
    with ThreadPoolExecutor(1) as other, transaction.atomic():
        (mine,) = claim(1)

        theirs = other.submit(claim_elsewhere, 10).result(timeout=5)

    assert theirs == list(events - {mine.event_id})


@pytest.mark.django_db(transaction=True)
def test_many_claimers_never_get_the_same_delivery(endpoint: Endpoint, happens: Happens) -> None:
    events = {happens().id for _ in range(40)}

    with ThreadPoolExecutor(6) as claimers:
        batches = list(claimers.map(claim_elsewhere, [3] * 20))

    taken = [event_id for batch in batches for event_id in batch]
    assert len(taken) == len(set(taken))
    assert set(taken) == events
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


def claim_elsewhere(limit: int) -> list[UUID]:
    """Claim over a connection of this thread's own."""
    try:
        return [claimed.event_id for claimed in claim(limit)]
    finally:
        connection.close()

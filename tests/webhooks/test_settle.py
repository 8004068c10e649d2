"""Settling: state and log in one fenced transaction."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from core.ssrf_guard import CappedResponse, ConnectionFailed
from tenants.models import Site
from webhooks.claim import ClaimedDelivery, claim_due
from webhooks.endpoints import create_endpoint, disable_endpoint
from webhooks.judge import Delivered, DeliveryCanceled, DeliveryExhausted, DeliveryOutcome, EndpointGone, RetryDelivery
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint, Event
from webhooks.send import DeliveryExchange
from webhooks.settle import DeliverySettlement, release, settle, settle_all

LEASE = timedelta(seconds=30)
OK = DeliveryExchange(CappedResponse(200, httpx.Headers(), b"thank you"), 12)
BUSY = DeliveryExchange(CappedResponse(503, httpx.Headers(), b"busy"), 34)
SILENT = DeliveryExchange(ConnectionFailed("No connection within 5 s."), 5000)
NewEventFactory = Callable[..., Event]


def claim(limit: int = 10) -> list[ClaimedDelivery]:
    return claim_due(limit, LEASE)


def now_in_postgres() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment = cursor.fetchone()[0]
    assert isinstance(moment, datetime)
    return moment


@pytest.mark.parametrize(
    ("outcome", "exchange", "state", "status", "error"),
    [
        (Delivered(), OK, DeliveryState.DELIVERED, 200, ""),
        (DeliveryExhausted("Busy for ever."), BUSY, DeliveryState.EXHAUSTED, 503, "Busy for ever."),
        (DeliveryExhausted("No connection."), SILENT, DeliveryState.EXHAUSTED, None, "No connection."),
        (DeliveryCanceled("Disabled."), None, DeliveryState.CANCELED, None, "Disabled."),
    ],
)
def test_a_final_outcome_sets_state_and_error(
    delivery: Delivery,
    outcome: DeliveryOutcome,
    exchange: DeliveryExchange | None,
    state: DeliveryState,
    status: int | None,
    error: str,
) -> None:
    (claimed,) = claim()

    assert settle(claimed, outcome, exchange)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_status, delivery.last_error) == (state, status, error)
    assert delivery.due_at is None
    assert delivery.finished_at is not None


def test_a_retry_is_due_after_its_delay_by_the_databases_clock(delivery: Delivery) -> None:
    (claimed,) = claim()
    before = now_in_postgres()

    assert settle(claimed, RetryDelivery(timedelta(minutes=5), "Busy."), BUSY)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_status, delivery.last_error) == (DeliveryState.PENDING, 503, "Busy.")
    assert delivery.due_at is not None
    assert timedelta(0) <= delivery.due_at - before - timedelta(minutes=5) < timedelta(seconds=5)
    assert delivery.finished_at is None


def test_a_later_success_clears_the_error(delivery: Delivery) -> None:
    settle(claim()[0], RetryDelivery(timedelta(0), "Busy."), BUSY)

    settle(claim()[0], Delivered(), OK)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error, delivery.attempts) == (DeliveryState.DELIVERED, "", 2)


def test_every_exchange_has_a_row_in_the_delivery_log(delivery: Delivery) -> None:
    first = claim()[0]
    settle(first, RetryDelivery(timedelta(0), "Busy."), BUSY)
    settle(claim()[0], RetryDelivery(timedelta(0), "Silent."), SILENT)
    settle(claim()[0], Delivered(), OK)

    rows = delivery.log.values_list("number", "status", "error", "response_head", "duration_ms")
    assert list(rows) == [
        (1, 503, "Busy.", "busy", 34),
        (2, None, "Silent.", "", 5000),
        (3, 200, "", "thank you", 12),
    ]
    assert delivery.log.get(number=1).started_at == first.claimed_at


def test_an_attempt_that_was_not_sent_has_no_row_in_the_delivery_log(delivery: Delivery) -> None:
    settle(claim()[0], DeliveryCanceled("Disabled."), None)

    assert not DeliveryAttempt.objects.exists()


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"a\0b", "a\ufffdb"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 16_384, "x" * 1000),
        ("é".encode() * 900, "é" * 900),
    ],
)
def test_any_response_bytes_can_be_stored(delivery: Delivery, head: bytes, kept: str) -> None:
    assert settle(claim()[0], Delivered(), DeliveryExchange(CappedResponse(200, httpx.Headers(), head), 1))

    assert delivery.log.get().response_head == kept


def test_a_long_reason_is_truncated(delivery: Delivery) -> None:
    assert settle(claim()[0], DeliveryExhausted("x" * 500), BUSY)

    delivery.refresh_from_db()
    assert delivery.last_error == delivery.log.get().error == "x" * 200


@pytest.mark.parametrize(
    "late",
    [
        Delivered(),
        RetryDelivery(timedelta(0), "late"),
        DeliveryExhausted("late"),
        EndpointGone("late"),
        DeliveryCanceled("late"),
    ],
)
def test_a_superseded_attempt_changes_nothing(delivery: Delivery, late: DeliveryOutcome) -> None:
    (stale,) = claim()
    Delivery.objects.update(due_at=Now())  # the lease has expired
    (current,) = claim()
    before = Delivery.objects.values().get()

    assert not settle(stale, late, OK)

    assert Delivery.objects.values().get() == before
    assert not DeliveryAttempt.objects.exists()
    assert Endpoint.objects.get().is_enabled
    assert settle(current, Delivered(), OK)


def test_an_attempt_is_settled_once(delivery: Delivery) -> None:
    (claimed,) = claim()

    assert settle(claimed, Delivered(), OK)
    assert not settle(claimed, DeliveryExhausted("again"), BUSY)

    assert Delivery.objects.get().state == DeliveryState.DELIVERED
    assert DeliveryAttempt.objects.count() == 1


def test_a_group_of_attempts_is_settled_together_each_with_its_own_fence(
    delivery: Delivery,
    new_event: NewEventFactory,
    django_assert_max_num_queries: Callable[[int], AbstractContextManager[Any]],
) -> None:
    (stale,) = claim()
    Delivery.objects.update(due_at=Now())  # the lease has expired
    for _ in range(2):
        new_event()
    current, second, third = sorted(claim(), key=lambda claimed: claimed.event_id)

    with django_assert_max_num_queries(4):  # the two statements, and the savepoint around them
        results = settle_all(
            [
                DeliverySettlement(stale, Delivered(), OK),
                DeliverySettlement(current, Delivered(), OK),
                DeliverySettlement(second, RetryDelivery(timedelta(minutes=5), "Busy."), BUSY),
                DeliverySettlement(third, DeliveryCanceled("Disabled.")),
            ]
        )

    assert results == [False, True, True, True]
    states = list(Delivery.objects.order_by("id").values_list("state", flat=True))
    assert states == [DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.CANCELED]
    assert sorted(DeliveryAttempt.objects.values_list("number", "status")) == [(1, 503), (2, 200)]


# Endpoints that are gone


def test_gone_disables_the_endpoint_and_cancels_its_other_deliveries(
    site: Site, endpoint: Endpoint, new_event: NewEventFactory
) -> None:
    other, _ = create_endpoint(site, "https://example.com/other")
    done = new_event()
    for claimed in claim():
        settle(claimed, Delivered(), OK)
    waiting, last = new_event(), new_event()
    (claimed,) = (c for c in claim() if (c.event_id, c.endpoint_id) == (last.id, endpoint.id))

    assert settle(claimed, EndpointGone("Gone."), DeliveryExchange(CappedResponse(410, httpx.Headers(), b""), 1))

    endpoint.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "gone")
    assert dict(endpoint.deliveries.values_list("event", "state")) == {
        done.id: DeliveryState.DELIVERED,
        waiting.id: DeliveryState.CANCELED,
        last.id: DeliveryState.CANCELED,
    }
    assert endpoint.deliveries.get(event=last).last_status == 410
    assert set(other.deliveries.exclude(event=done).values_list("state", flat=True)) == {DeliveryState.PENDING}


def test_an_attempt_in_flight_when_its_endpoint_is_disabled_is_canceled(delivery: Delivery) -> None:
    (claimed,) = claim()
    disable_endpoint(delivery.endpoint)

    assert not settle(claimed, RetryDelivery(timedelta(0), "Busy."), BUSY)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (DeliveryState.CANCELED, "The endpoint was disabled.")


def test_settling_for_a_deleted_endpoint_does_not_raise(delivery: Delivery) -> None:
    (claimed,) = claim()
    delivery.endpoint.delete()

    assert not settle(claimed, EndpointGone("Gone."), BUSY)


@pytest.mark.django_db(transaction=True)
def test_concurrent_410s_of_one_endpoint_do_not_deadlock(endpoint: Endpoint, new_event: NewEventFactory) -> None:
    for _ in range(2):
        new_event()

    with ThreadPoolExecutor(2) as threads:
        with transaction.atomic():
            Endpoint.objects.select_for_update().get()
            settling = [threads.submit(settle_elsewhere, claimed) for claimed in claim()]
            wait_until_blocked(2)
        ended = [future.result(timeout=10) for future in settling]

    # The first settlement canceled the other delivery, whose settlement was then too late.
    assert sorted(ended) == [False, True]
    assert set(Delivery.objects.values_list("state", flat=True)) == {DeliveryState.CANCELED}


def settle_elsewhere(claimed: ClaimedDelivery) -> bool:
    """Settle over a separate connection, that of this thread."""
    try:
        return settle(claimed, EndpointGone("Gone."), BUSY)
    finally:
        connection.close()


def wait_until_blocked(count: int) -> None:
    """Wait until this many other connections of the database wait for a lock."""
    give_up_at = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < give_up_at:
            # Within a transaction the statistics are a snapshot until it is cleared.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0] >= count:
                return
    raise AssertionError(f"{count} were never blocked.")


# Release


def test_a_released_delivery_is_due_immediately_and_its_attempt_counts(delivery: Delivery) -> None:
    release(claim())

    assert [again.attempt for again in claim()] == [2]


def test_a_superseded_attempt_cannot_release_the_delivery(delivery: Delivery) -> None:
    stale = claim()
    Delivery.objects.update(due_at=Now())
    claim()

    release(stale)

    assert claim() == []

"""The courier with its own threads, against a real receiver and a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import pytest
import uvloop
from django.db import OperationalError, connection
from django.db.models import Max
from django.db.models.functions import Now
from pytest_django import Settings
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from core import clock
from core.crypto import new_key
from core.database_threads import DatabaseThreadPool
from core.ssrf_guard import EgressPolicy, guarded_client
from tests.webhooks.receiver import (
    Behavior,
    Receiver,
    answering,
    cut,
    dripping,
    flooding,
    receiving,
)
from webhooks.claim import claim_due
from webhooks.courier import Courier
from webhooks.judge import Delivered
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint, Event
from webhooks.network_policy import webhook_network_policy
from webhooks.send import prepare, send
from webhooks.settle import settle
from webhooks.tasks import bell, ring

pytestmark = pytest.mark.django_db(transaction=True)

P = ParamSpec("P")
R = TypeVar("R")
NewEventFactory = Callable[..., Event]
Logs = list[MutableMapping[str, Any]]


def courier(threads: DatabaseThreadPool | None = None, egress: EgressPolicy | None = None, **options: Any) -> Courier:
    arguments: dict[str, Any] = {"slots": 8, "timeout_seconds": 5, "rng": lambda: 0.5, **options}
    return Courier(client=guarded_client(egress or webhook_network_policy()), threads=threads, **arguments)


@asynccontextmanager
async def running(courier: Courier) -> AsyncIterator[None]:
    """Run the courier, subscribed to the doorbell as in a worker process."""
    task = asyncio.create_task(courier.run())
    bell.set_listener(courier.wake)
    try:
        yield
    finally:
        bell.set_listener(None)
        courier.stop()
        await task


class Database:
    """Access to the database from a test that runs an event loop."""

    def __init__(self) -> None:
        self._threads = DatabaseThreadPool("test", 1)

    async def run(self, function: Callable[[], R]) -> R:
        return await self._threads.run(function)

    async def until(self, condition: Callable[[], object], seconds: float = 40) -> None:
        """Wait until the condition is true."""
        async with asyncio.timeout(seconds):
            while not await self.run(condition):  # noqa: ASYNC110 (rows of Postgres raise no event)
                await asyncio.sleep(0.02)

    def close(self) -> None:
        self._threads.close()


@asynccontextmanager
async def scene(*script: Behavior, otherwise: Behavior | None = None) -> AsyncIterator[tuple[Receiver, Database]]:
    """Start a receiver, point every endpoint at it, and give access to the database."""
    database = Database()
    async with receiving() as receiver:
        receiver.script = list(script)
        receiver.otherwise = otherwise or receiver.otherwise
        await database.run(lambda: Endpoint.objects.update(url=receiver.url))
        yield receiver, database
    database.close()


def judged() -> bool:
    """Every delivery has had an attempt, and so has an error or a final state."""
    untouched = Delivery.objects.filter(state=DeliveryState.PENDING, last_status=None, last_error="")
    return not untouched.exists()


def ended() -> bool:
    return not Delivery.objects.filter(state=DeliveryState.PENDING).exists()


def make_due() -> None:
    Delivery.objects.filter(state=DeliveryState.PENDING).update(due_at=Now())


def deliver(*script: Behavior, until: Callable[[], bool] = judged, **options: Any) -> Receiver:
    """Run a courier until `until` is true; return the receiver."""

    async def play() -> Receiver:
        async with scene(*script) as (receiver, database), running(courier(**options)):
            await database.until(until)
        return receiver

    return uvloop.run(play())


# Outcomes


def test_an_event_arrives_signed(delivery: Delivery, secret: str) -> None:
    receiver = deliver(answering(200))

    (received,) = receiver.received
    assert Webhook(secret).verify(received.body, received.headers)["type"] == "job.succeeded"
    assert received.headers["webhook-id"] == delivery.event.public_id
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.last_status) == (DeliveryState.DELIVERED, 1, 200)


def test_a_delivery_is_retried_after_a_500_with_the_same_id_and_bytes(delivery: Delivery, secret: str) -> None:
    async def play() -> Receiver:
        async with scene(answering(500, body=b"broken"), answering(200)) as (receiver, database):
            courier_ = courier()
            async with running(courier_):
                await database.until(judged)
                await database.run(make_due)
                courier_.wake()
                await database.until(ended)
        return receiver

    first, second = uvloop.run(play()).received

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert Webhook(secret).verify(second.body, second.headers)
    assert [r.headers["x-nightdesk-attempt"] for r in (first, second)] == ["1", "2"]
    rows = delivery.log.values_list("number", "status", "error", "response_head")
    assert list(rows) == [(1, 500, "The receiver answered 500.", "broken"), (2, 200, "", "")]


def waits(delivery: Delivery) -> timedelta:
    """Return the time from the start of the attempt until the delivery is due again."""
    delivery.refresh_from_db()
    begun = delivery.log.aggregate(last=Max("started_at"))["last"]
    assert delivery.state == DeliveryState.PENDING
    assert delivery.due_at is not None
    waited: timedelta = delivery.due_at - begun
    return waited


@pytest.mark.parametrize(
    ("behavior", "options", "error"),
    [
        (answering(500), {}, "answered 500"),
        (cut, {}, "closed before a response"),
        (answering(302, "Location: http://127.0.0.1/"), {}, "redirect"),
        (dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "), {"timeout_seconds": 0.3}, "No response within 0.3 s"),
        (answering(200), {"egress": EgressPolicy(ports=frozenset())}, "not public"),
    ],
)
def test_a_failed_attempt_is_followed_by_the_backoff_of_the_schedule(
    delivery: Delivery, behavior: Behavior, options: dict[str, Any], error: str
) -> None:
    receiver = deliver(behavior, **options)

    assert timedelta(seconds=5) <= waits(delivery) < timedelta(seconds=8)
    assert error in delivery.last_error
    assert len(receiver.received) == (0 if "egress" in options else 1)


def test_retry_after_extends_the_backoff(delivery: Delivery) -> None:
    deliver(answering(429, "Retry-After: 600"))

    assert timedelta(minutes=10) <= waits(delivery) < timedelta(minutes=10, seconds=3)


def test_a_410_disables_the_endpoint_and_cancels_its_deliveries(endpoint: Endpoint, new_event: NewEventFactory) -> None:
    first = new_event()
    deliver(answering(410))

    with capture_logs():
        new_event()
    receiver = deliver()

    endpoint.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "gone")
    assert Delivery.objects.get().event == first
    assert Delivery.objects.get().state == DeliveryState.CANCELED
    assert receiver.received == []


def test_a_due_delivery_to_a_disabled_endpoint_is_canceled_unsent(delivery: Delivery) -> None:
    Endpoint.objects.update(is_enabled=False)

    receiver = deliver()

    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (DeliveryState.CANCELED, "The endpoint was disabled.")
    assert receiver.received == []


def test_a_2xx_status_counts_as_delivered_however_long_the_body(delivery: Delivery) -> None:
    written: list[int] = []
    deliver(flooding(131_072_000, written))

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.DELIVERED
    assert written[0] < 16_000_000
    assert delivery.log.get().response_head == "x" * 1000


def test_a_delivery_is_exhausted_after_its_tenth_failure(delivery: Delivery) -> None:
    Delivery.objects.update(attempts=9)

    deliver(answering(503))

    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == (DeliveryState.EXHAUSTED, 10)
    assert delivery.log.get().number == 10


# Crashes


def test_a_crash_between_response_and_settle_sends_the_same_event_again(delivery: Delivery, secret: str) -> None:
    async def play() -> tuple[Receiver, bool]:
        async with scene() as (receiver, database):
            (lost,) = await database.run(lambda: claim_due(1, timedelta(seconds=30)))
            async with guarded_client(webhook_network_policy()) as client:
                # The receiver answers 200, and the process dies before it can record that.
                exchange = await send(prepare(lost, clock.unix_seconds() - 31), client, 5)
            await database.run(make_due)  # the lease has expired
            async with running(courier()):
                await database.until(ended)
            return receiver, await database.run(lambda: settle(lost, Delivered(), exchange))

    receiver, late_settled = uvloop.run(play())

    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery.event.public_id
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) >= 31
    assert Webhook(secret).verify(second.body, second.headers)
    assert not late_settled
    assert list(delivery.log.values_list("number", flat=True)) == [2]


def test_a_delivery_that_cannot_be_prepared_does_not_affect_others(
    endpoint: Endpoint, new_event: NewEventFactory, settings: Settings
) -> None:
    good_keys = settings.ENCRYPTION_KEYS
    bad = new_event()
    settings.ENCRYPTION_KEYS = f"other:{new_key()},{good_keys}"
    Event.objects.filter(id=bad.id).update(payload=b"{}")  # encrypted with a key that is then removed
    settings.ENCRYPTION_KEYS = good_keys
    good = new_event()

    with capture_logs() as logs:
        receiver = deliver()

    assert [received.headers["webhook-id"] for received in receiver.received] == [good.public_id]
    broken = Delivery.objects.get(event=bad)
    assert broken.state == DeliveryState.PENDING
    assert "see the worker log" in broken.last_error
    assert [entry["event"] for entry in logs].count("delivery_crashed") == 1


class FailingThreads(DatabaseThreadPool):
    """Threads that signal each claim, and that fail named functions with an OperationalError some times."""

    def __init__(self, failing: Iterable[str] = (), times: int = 0) -> None:
        super().__init__("failing", 4)
        self.claimed = asyncio.Event()
        self.failures_left = times
        self._failing = set(failing)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if function.__name__ in self._failing and self.failures_left > 0:
            self.failures_left -= 1
            raise OperationalError("the database is unavailable")
        result = await super().run(function, *args, **kwargs)
        if function is claim_due:
            self.claimed.set()
        return result


def test_the_courier_survives_a_database_outage_and_logs_it_once(delivery: Delivery) -> None:
    threads = FailingThreads(["claim_due"], times=3)

    async def play() -> None:
        async with scene() as (_, database):
            courier_ = courier(threads)

            def ended_after_another_try() -> bool:
                # Each wake causes another claim, so that the test does not wait for the backoff.
                courier_.wake()
                return ended()

            async with running(courier_):
                await database.until(ended_after_another_try)

    with capture_logs() as logs:
        uvloop.run(play())

    names = [entry["event"] for entry in logs]
    assert threads.failures_left == 0
    assert (names.count("webhook_worker_database_unavailable"), names.count("webhook_worker_database_recovered")) == (
        1,
        1,
    )
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.DELIVERED


async def test_a_bug_in_the_claim_is_logged_each_time_with_its_traceback_and_is_no_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("webhooks.courier.claim_due", broken)
    courier_ = courier()

    with capture_logs() as logs:
        for _ in range(3):
            await courier_._claim()
    await courier_._drain()

    assert [(entry["event"], type(entry.get("exc_info"))) for entry in logs] == [("worker_step_failed", KeyError)] * 3


def test_database_connections_that_were_cut_are_replaced(delivery: Delivery) -> None:
    Delivery.objects.update(due_at=Now() + timedelta(seconds=60))
    connection.close()  # the connection of this thread would be cut as well

    def cut_all_others() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            make_due()

    def ended_as_far_as_one_can_ask() -> bool:
        try:
            return ended()
        except OperationalError:
            return False

    async def play() -> None:
        threads = FailingThreads()
        async with scene() as (_, database), running(courier(threads, poll_seconds=0.1)):
            await threads.claimed.wait()
            await database.run(cut_all_others)
            await database.until(ended_as_far_as_one_can_ask)

    with capture_logs():
        uvloop.run(play())

    assert Delivery.objects.get().state == DeliveryState.DELIVERED


def test_an_outcome_is_recorded_once_the_database_is_available_again(delivery: Delivery) -> None:
    receiver = deliver(threads=FailingThreads(["settle_all"], times=1), until=ended)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, len(receiver.received)) == (DeliveryState.DELIVERED, 1, 1)


# Stopping


async def arrived(receiver: Receiver) -> None:
    """Wait until the receiver gets a request."""
    await asyncio.wait_for(receiver.arrivals.get(), timeout=8)


def holding(released: asyncio.Event) -> Behavior:
    """Answer 200 once released."""

    async def hold(writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await answering(200)(writer)

    return hold


def test_stop_waits_for_attempts_in_flight_and_claims_nothing_more(
    endpoint: Endpoint, new_event: NewEventFactory
) -> None:
    first = new_event()

    async def play() -> Receiver:
        released = asyncio.Event()
        courier_ = courier()
        async with scene(holding(released)) as (receiver, database), running(courier_):
            await arrived(receiver)
            courier_.stop()
            await database.run(lambda: new_event() and None)
            released.set()
        return receiver

    receiver = uvloop.run(play())

    assert len(receiver.received) == 1
    assert Delivery.objects.get(event=first).state == DeliveryState.DELIVERED
    assert list(Delivery.objects.exclude(event=first).values_list("state", "attempts")) == [("pending", 0)]


def test_attempts_that_do_not_finish_in_time_are_released(delivery: Delivery) -> None:
    async def play() -> None:
        threads = FailingThreads(["settle_all"], times=1000)
        async with scene() as (receiver, _), running(courier(threads, timeout_seconds=0.3)):
            await arrived(receiver)

    with capture_logs() as logs:
        uvloop.run(play())

    (again,) = claim_due(10, timedelta(seconds=30))
    assert (again.delivery_id, again.attempt) == (delivery.id, 2)
    assert "deliveries_released" in [entry["event"] for entry in logs]


def test_attempts_that_cannot_be_released_wait_for_their_lease_to_expire(delivery: Delivery) -> None:
    async def play() -> None:
        threads = FailingThreads(["settle_all", "release"], times=1000)
        async with scene() as (receiver, _), running(courier(threads, timeout_seconds=0.3)):
            await arrived(receiver)

    with capture_logs() as logs:
        uvloop.run(play())

    assert claim_due(10, timedelta(seconds=30)) == []
    assert "deliveries_not_released" in [entry["event"] for entry in logs]


# Concurrency and wake-ups


def test_slots_bound_concurrency_and_a_free_slot_is_filled_immediately(
    endpoint: Endpoint, new_event: NewEventFactory
) -> None:
    for _ in range(12):
        new_event()
    at_once = most = 0

    async def count(writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        await answering(200)(writer)

    async def play() -> None:
        # With so long a poll interval, only a freed slot can make the courier claim again.
        async with scene(otherwise=count) as (_, database), running(courier(slots=3, poll_seconds=60)):
            await database.until(ended)

    uvloop.run(play())

    assert most == 3
    assert DeliveryAttempt.objects.count() == 12


def test_a_ring_from_any_thread_wakes_the_courier_immediately(endpoint: Endpoint, new_event: NewEventFactory) -> None:
    async def play() -> None:
        threads = FailingThreads()
        async with scene() as (receiver, database), running(courier(threads, poll_seconds=60)):
            await threads.claimed.wait()  # the claim found nothing, so only the ring can cause another one

            await database.run(lambda: new_event() and None)

            await arrived(receiver)
            await database.until(ended)

    uvloop.run(play())


def test_without_a_ring_polling_finds_the_delivery(delivery: Delivery) -> None:
    Delivery.objects.update(due_at=Now() + timedelta(seconds=0.3))

    deliver(until=ended, poll_seconds=0.1)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.DELIVERED


def test_the_doorbell_message_wakes_the_courier_of_this_process(delivery: Delivery, rings: list[str]) -> None:
    rings.clear()

    ring()

    assert rings == ["ring"]


def test_wake_and_stop_are_safe_before_and_after_run() -> None:
    courier_ = courier()
    courier_.wake()
    courier_.stop()

    uvloop.run(courier_.run())

    courier_.wake()
    courier_.stop()


def test_a_courier_is_configured_by_the_settings(delivery: Delivery) -> None:
    async def play() -> Receiver:
        async with scene() as (receiver, database), running(Courier()):
            await database.until(ended)
        return receiver

    assert len(uvloop.run(play()).received) == 1


def test_the_log_names_the_delivery_and_shows_no_secret(delivery: Delivery, secret: str) -> None:
    with capture_logs() as logs:
        deliver()

    (entry,) = (entry for entry in logs if entry["event"] == "delivery_attempted")
    assert (entry["outcome"], entry["attempt"], entry["status"]) == ("delivered", 1, 200)
    assert secret not in str(logs)
    assert "café" not in str(logs)

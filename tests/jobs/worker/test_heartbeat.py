"""The heartbeat continues while the event loop is busy, and stops when it stalls."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from django.utils import timezone

from jobs.models import WorkerLease
from jobs.worker import heartbeat, leases
from jobs.worker.heartbeat import Heartbeat, HeartbeatEvent, HeartbeatMissed, LeaseAcquired, LeaseLost, LeaseRenewed
from tests.polling import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Listener:
    """An event loop in a thread, and the heartbeat events that it received."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.events: list[HeartbeatEvent] = []
        self.go_on = threading.Event()

    def on_event(self, beat: HeartbeatEvent) -> None:
        self.events.append(beat)

    def kinds(self) -> list[type[HeartbeatEvent]]:
        return [type(beat) for beat in self.events]

    def get_stuck(self) -> None:
        """Block the loop until `go_on` is set."""
        self.loop.call_soon_threadsafe(self.go_on.wait, 60)


@contextmanager
def beating(loop_stall_seconds: float = 30) -> Iterator[Listener]:
    listener = Listener()
    thread = threading.Thread(target=listener.loop.run_forever)
    thread.start()
    beats = Heartbeat(listener.loop, listener.on_event, lambda: {"jobs": len(listener.events)}, loop_stall_seconds)
    beats.start()
    try:
        yield listener
    finally:
        listener.go_on.set()
        beats.stop()
        listener.loop.call_soon_threadsafe(listener.loop.stop)
        thread.join()
        listener.loop.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)


def expiry() -> float:
    return WorkerLease.objects.get().expires_at.timestamp()


def test_a_lease_is_acquired_and_renewed_with_the_report_of_the_loop() -> None:
    with beating() as listener:
        wait_for(lambda: len(listener.events) >= 4)
        lease = wait_for(lambda: WorkerLease.objects.filter(report__jobs__gte=2).first())

    assert listener.kinds()[:3] == [LeaseAcquired, LeaseRenewed, LeaseRenewed]
    assert listener.events[0] == LeaseAcquired(lease.worker_id)


def test_heartbeats_continue_while_the_loop_is_busy() -> None:
    with beating() as listener:
        wait_for(lambda: listener.events)
        listener.get_stuck()
        before = expiry()
        wait_for(lambda: expiry() > before + 0.2)


def test_heartbeats_stop_for_a_stalled_loop() -> None:
    with beating(loop_stall_seconds=0.2) as listener:
        wait_for(lambda: listener.events)
        listener.get_stuck()
        # Nothing renews the lease any more: it is the same in two reads.
        wait_for(lambda: unchanged(), seconds=20)
        WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        listener.go_on.set()
        wait_for(lambda: LeaseLost in listener.kinds())
        wait_for(lambda: listener.kinds().count(LeaseAcquired) == 2)

    assert WorkerLease.objects.count() == 2


def test_heartbeats_resume_after_the_process_was_frozen_for_longer_than_a_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen process stops its event loop and its heartbeat alike; afterwards only the clock has moved."""
    frozen_seconds = 0.0
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + frozen_seconds))
    with beating(loop_stall_seconds=5) as listener:
        wait_for(lambda: LeaseRenewed in listener.kinds())
        frozen_seconds = 60.0
        seen = len(listener.events)

        wait_for(lambda: len(listener.events) > seen + 3)


def unchanged() -> bool:
    """Whether the lease was not renewed for ten heartbeats."""
    before = expiry()
    threading.Event().wait(0.5)
    return expiry() == before


def test_an_expired_lease_is_reported_and_a_new_one_acquired() -> None:
    with beating() as listener:
        wait_for(lambda: LeaseRenewed in listener.kinds())
        WorkerLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        wait_for(lambda: listener.kinds().count(LeaseAcquired) == 2)

    first, second = (beat for beat in listener.events if isinstance(beat, LeaseAcquired))
    assert LeaseLost(first.worker_id) in listener.events
    assert first.worker_id != second.worker_id


def test_a_failed_heartbeat_is_reported_and_the_next_one_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([OperationalError("unavailable")] * 2)
    take_lease = leases.acquire_lease

    def stumble() -> object:
        for error in failures:
            raise error
        return take_lease()

    monkeypatch.setattr(leases, "acquire_lease", stumble)
    with beating() as listener:
        wait_for(lambda: LeaseRenewed in listener.kinds())

    assert listener.kinds()[:4] == [HeartbeatMissed, HeartbeatMissed, LeaseAcquired, LeaseRenewed]

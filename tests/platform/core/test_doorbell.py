"""Doorbells wake the local listener or publish a message, and never block the caller."""

import threading
import time

from core import doorbell
from core.doorbell import Doorbell
from tests.polling import wait_for


def test_a_ring_wakes_the_listener_of_this_process_and_publishes_nothing() -> None:
    woken, published = threading.Event(), threading.Event()
    bell = Doorbell("jobs", publish=published.set)
    bell.set_listener(woken.set)

    bell.ring()

    assert woken.is_set()
    assert not published.is_set()


def test_without_a_listener_a_ring_is_published() -> None:
    published = threading.Event()

    Doorbell("jobs", publish=published.set).ring()

    assert published.wait(5)


def test_an_unresponsive_broker_does_not_block_the_caller() -> None:
    hung, may_go_on = threading.Event(), threading.Event()
    rings: list[int] = []

    def publish() -> None:
        rings.append(1)
        hung.set()
        may_go_on.wait(5)

    bell = Doorbell("jobs", publish=publish)
    bell.ring()
    assert hung.wait(5)
    for _ in range(100):
        bell.ring()  # returns at once, or this test takes 500 s

    may_go_on.set()
    wait_for(lambda: len(rings) == 2)


def test_rings_during_the_coalescing_interval_are_published_as_one() -> None:
    published: list[float] = []
    bell = Doorbell("jobs", publish=lambda: published.append(time.monotonic()))
    bell.ring()
    wait_for(lambda: published)

    for _ in range(100):
        bell.ring()
    wait_for(lambda: len(published) == 2)

    assert published[1] - published[0] >= doorbell.COALESCE_SECONDS


def test_a_failed_publication_raises_nothing_and_the_next_ring_is_published() -> None:
    published = threading.Event()
    failed: list[str] = []

    def publish() -> None:
        if not failed:
            failed.append("no broker")
            raise ConnectionError("no broker")
        published.set()

    bell = Doorbell("jobs", publish=publish)
    bell.ring()
    wait_for(lambda: failed)
    bell.ring()

    assert published.wait(doorbell.BACKOFF_SECONDS + 5)


def test_a_removed_listener_is_not_woken() -> None:
    woken, published = threading.Event(), threading.Event()
    bell = Doorbell("jobs", publish=published.set)
    bell.set_listener(woken.set)
    bell.set_listener(None)

    bell.ring()

    assert published.wait(5)
    assert not woken.is_set()

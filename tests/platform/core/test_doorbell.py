"""A doorbell wakes who listens, publishes where nobody does, and never makes a caller wait."""

import threading
import time

from core import doorbell
from core.doorbell import Doorbell
from tests.polling import wait_for


def test_a_listener_in_this_process_is_woken_and_nothing_is_published() -> None:
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


def test_a_broker_that_does_not_answer_keeps_nobody_waiting() -> None:
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


def test_after_a_ring_the_bell_rests_and_then_tells_of_all_that_came_meanwhile() -> None:
    published: list[float] = []
    bell = Doorbell("jobs", publish=lambda: published.append(time.monotonic()))
    bell.ring()
    wait_for(lambda: published)

    for _ in range(100):
        bell.ring()
    wait_for(lambda: len(published) == 2)

    assert published[1] - published[0] >= doorbell.COALESCE_SECONDS


def test_a_ring_that_cannot_be_published_is_no_error_and_the_next_one_is() -> None:
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


def test_a_listener_that_was_taken_down_is_not_woken() -> None:
    woken, published = threading.Event(), threading.Event()
    bell = Doorbell("jobs", publish=published.set)
    bell.set_listener(woken.set)
    bell.set_listener(None)

    bell.ring()

    assert published.wait(5)
    assert not woken.is_set()

"""Doorbells wake processes that wait for work. A lost ring costs latency, never work: the database row is the truth."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: Rings within this time after a published ring are coalesced into one.
COALESCE_SECONDS = 0.05
#: Pause after a failed publication.
BACKOFF_SECONDS = 1.0


class Doorbell:
    """The doorbell of one kind of work.

    If this process has a listener (a worker), a ring wakes it directly. Otherwise a background thread publishes the
    ring, so that no request ever waits for the broker. The first ring is published immediately; rings during that, and
    for `COALESCE_SECONDS` after it, are published as one: a message costs sender and receiver more than a row that is
    claimed together with others.
    """

    def __init__(self, name: str, publish: Callable[[], object]) -> None:
        self.name = name
        self._publish = publish
        self._listener: Callable[[], object] | None = None
        self._ring_pending = threading.Event()
        self._publisher: threading.Thread | None = None
        self._lock = threading.Lock()

    def set_listener(self, listener: Callable[[], object] | None) -> None:
        """Set the listener of this process; None removes it. It may be called from any thread."""
        self._listener = listener

    def ring(self) -> None:
        """Wake a listener, in this or another process. It returns immediately and never raises."""
        if self.wake_listener():
            return
        self._ring_pending.set()
        with self._lock:
            if self._publisher is None or not self._publisher.is_alive():
                self._publisher = threading.Thread(target=self._run, name=f"doorbell-{self.name}", daemon=True)
                self._publisher.start()

    def wake_listener(self) -> bool:
        """Wake the listener of this process. False if there is none."""
        listener = self._listener
        if listener is None:
            return False
        listener()
        return True

    def _run(self) -> None:
        while self._ring_pending.wait():
            self._ring_pending.clear()
            self._publish_once()
            threading.Event().wait(COALESCE_SECONDS)

    def _publish_once(self) -> None:
        try:
            self._publish()
        except Exception as error:  # the outermost handler of this thread
            # Every worker looks for ready rows each second anyway, so a warning is enough, without a retry.
            log.warning("doorbell_publish_failed", bell=self.name, error=type(error).__name__)
            threading.Event().wait(BACKOFF_SECONDS)

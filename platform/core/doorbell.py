"""A doorbell wakes whoever waits for work. Losing a ring costs latency, never work: the row is the truth."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: How long the bell rests after each ring that is published; those that come meanwhile become one.
COALESCE_SECONDS = 0.05
#: How long the bell stays silent after the broker did not answer.
BACKOFF_SECONDS = 1.0


class Doorbell:
    """One kind of work's bell.

    Where a listener is hung up in this process (a worker), a ring wakes it directly. Elsewhere a ring is published by
    a thread of its own, so that no request ever waits for a broker. The first is published at once; rings that come
    while it is, and for a moment after, are one ring: a message costs whoever sends and whoever hears it more than a
    row costs that is claimed together with others.
    """

    def __init__(self, name: str, publish: Callable[[], object]) -> None:
        self.name = name
        self._publish = publish
        self._listener: Callable[[], object] | None = None
        self._ring_pending = threading.Event()
        self._publisher: threading.Thread | None = None
        self._lock = threading.Lock()

    def set_listener(self, listener: Callable[[], object] | None) -> None:
        """Hang up a listener for this process; None takes it down. It is called from any thread."""
        self._listener = listener

    def ring(self) -> None:
        """Wake a listener, here or in another process. Returns at once and never raises."""
        if self.wake():
            return
        self._ring_pending.set()
        with self._lock:
            if self._publisher is None or not self._publisher.is_alive():
                self._publisher = threading.Thread(target=self._run, name=f"doorbell-{self.name}", daemon=True)
                self._publisher.start()

    def wake(self) -> bool:
        """Wake this process's listener. False if none is hung up."""
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
        except Exception as error:  # the outermost of this thread
            # The sweep of every worker looks for ready rows each second, so this is worth a line, not a retry.
            log.warning("doorbell_publish_failed", bell=self.name, error=type(error).__name__)
            threading.Event().wait(BACKOFF_SECONDS)

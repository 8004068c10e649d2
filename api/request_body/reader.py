"""Reader of request bodies: into a spooled file, which is on disk once it is large, and with read timeouts.

If a body is not read to its end, the scope holds the reason (`unread_reason`), and the middleware responds with it.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import IO

import structlog
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.http import HttpRequest

from api.asgi_types import ASGIMessage, ASGIReceive, ASGIScope
from api.errors import BodyTimeout, StorageFull, TooManyUnverifiedUploads, UnreadBody

log = structlog.get_logger(__name__)

UNREAD_REASON, RESERVATION = "nightdesk.unread", "nightdesk.body_reservation"

#: Bytes of a large body that are buffered before a thread writes them to disk.
WRITE_CHUNK_BYTES = 1_048_576
#: Minimum average rate. A slower client is treated as an attack that holds connections open (slow POST).
MIN_BYTES_PER_SECOND = 4096
#: A signature cannot be accepted later than this: its timestamp may differ by 60 s in both directions.
MAX_UNVERIFIED_SECONDS = 120


class UnverifiedBodyBudget:
    """The process-wide budget for unverified bodies, MAX_UNVERIFIED_BYTES.

    A signature covers the body, so it can be verified only when the body is complete. Until then the sender is unknown.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._lock = threading.Lock()

    def reserve(self, byte_count: int) -> None:
        """Reserve bytes of the budget. Raises `TooManyUnverifiedUploads`."""
        with self._lock:
            if self._taken + byte_count > settings.MAX_UNVERIFIED_BYTES:
                raise TooManyUnverifiedUploads
            self._taken += byte_count

    def release(self, byte_count: int) -> None:
        with self._lock:
            self._taken -= byte_count


class BodyReservation:
    """The reservation of one body, held until its sender is authenticated or its request has finished."""

    def __init__(self, budget: UnverifiedBodyBudget) -> None:
        self._budget = budget
        self._taken = 0

    def reserve(self, byte_count: int) -> None:
        """Reserve more bytes. Raises `TooManyUnverifiedUploads`."""
        self._budget.reserve(byte_count)
        self._taken += byte_count

    def release(self) -> None:
        """Release everything reserved. Idempotent."""
        taken, self._taken = self._taken, 0
        self._budget.release(taken)


def body_timeout(received: int) -> BodyTimeout:
    return BodyTimeout(f"Timed out reading the body after {received:,} bytes. Send it again.")


def reservation_of(scope: ASGIScope) -> BodyReservation | None:
    """Return the reservation of a body whose sender is not authenticated yet; None for all others."""
    reservation: BodyReservation | None = scope.get(RESERVATION)
    return reservation


def unread_reason(request: HttpRequest) -> UnreadBody | None:
    """Return why the body was not read to its end; None if it was."""
    reason: UnreadBody | None = getattr(request, "scope", {}).get(UNREAD_REASON)
    return reason


async def read_body(scope: ASGIScope, receive: ASGIReceive) -> IO[bytes]:
    """Return the body in a temporary file, which is on disk once it is large and is deleted when closed.

    The file is empty if the body could not be read to its end; `unread_reason` then returns the reason.

    Raises:
        RequestAborted: the client disconnected.
    """
    body = _new_file()
    try:
        await _copy_body(body, with_read_timeout(scope, receive), reservation_of(scope))
    except UnreadBody as reason:
        _discard(body)
        scope[UNREAD_REASON] = reason
        return _new_file()
    except BaseException:
        _discard(body)
        raise
    return body


def _new_file() -> IO[bytes]:
    return SpooledTemporaryFile(settings.FILE_UPLOAD_MAX_MEMORY_SIZE)  # noqa: SIM115 (the caller closes it)


async def _copy_body(body: IO[bytes], receive: ASGIReceive, reservation: BodyReservation | None) -> None:
    more, buffer = True, bytearray()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        more = message.get("more_body", False)
        chunk = message.get("body", b"")
        if reservation is not None:
            reservation.reserve(len(chunk))
        buffer += chunk
        if len(buffer) >= WRITE_CHUNK_BYTES:
            await asyncio.to_thread(_write, body, buffer)
            buffer = bytearray()
    _write(body, buffer)
    with _disk_full_mapped():
        body.seek(0)


def _write(body: IO[bytes], chunk: bytearray) -> None:
    with _disk_full_mapped():
        body.write(chunk)


def _discard(body: IO[bytes]) -> None:
    with suppress(OSError):
        # Closing flushes buffered bytes, which fails again on a full disk. They are not needed.
        body.close()


@contextmanager
def _disk_full_mapped() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("body_storage_failed", error=type(error).__name__, reason=error.strerror)
        raise StorageFull from error


def with_read_timeout(scope: ASGIScope, receive: ASGIReceive) -> ASGIReceive:
    """Return a `receive` that raises `BodyTimeout` when one chunk, or all chunks together, take too long.

    Only time spent waiting for the client counts, not the time that this process needs in between.
    """
    chunk_timeout = float(settings.BODY_READ_TIMEOUT_SECONDS)
    max_total = MAX_UNVERIFIED_SECONDS if reservation_of(scope) else float("inf")
    waited, received = 0.0, 0

    async def receive_with_timeout() -> ASGIMessage:
        nonlocal waited, received
        total_timeout = min(chunk_timeout + received / MIN_BYTES_PER_SECOND, max_total)
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(chunk_timeout, total_timeout - waited)):
                message = await receive()
        except TimeoutError as error:
            raise body_timeout(received) from error
        waited += time.monotonic() - started
        received += len(message.get("body", b""))
        return message

    return receive_with_timeout

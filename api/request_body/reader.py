"""Bodies as they come in: on the disk once they are large, and never waited for without end.

A body that is not read to its end is answered like any other request: the scope says why (`unread_reason`).
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

#: How much of a large body is gathered, before a thread writes it to the disk.
WRITE_CHUNK_BYTES = 1_048_576
#: Who sends less than this on the average is taken for one that only wants to keep us busy.
MIN_BYTES_PER_SECOND = 4096
#: No signature can still be accepted later than this: its time may be a minute off in both directions.
MAX_UNVERIFIED_SECONDS = 120


class UnverifiedBodyBudget:
    """How much may be held, all together, of bodies whose signature can be checked only when they are whole."""

    def __init__(self) -> None:
        self._taken = 0
        self._lock = threading.Lock()

    def reserve(self, number: int) -> None:
        """Take so many bytes. Raises `TooManyUnverifiedUploads`."""
        with self._lock:
            if self._taken + number > settings.MAX_UNVERIFIED_BYTES:
                raise TooManyUnverifiedUploads
            self._taken += number

    def release(self, number: int) -> None:
        with self._lock:
            self._taken -= number


class BodyReservation:
    """What one body takes of the room, until its sender is proven or its request is over."""

    def __init__(self, room: UnverifiedBodyBudget) -> None:
        self._room = room
        self._taken = 0

    def reserve(self, number: int) -> None:
        """Take so many bytes more. Raises `TooManyUnverifiedUploads`."""
        self._room.reserve(number)
        self._taken += number

    def release(self) -> None:
        """Give all of it back; once more does nothing."""
        taken, self._taken = self._taken, 0
        self._room.release(taken)


def body_timeout(came: int) -> BodyTimeout:
    return BodyTimeout(f"Timed out reading the body after {came:,} bytes. Send it again.")


def reservation_of(scope: ASGIScope) -> BodyReservation | None:
    """Return the share of a body whose sender is not proven; None for all others."""
    share: BodyReservation | None = scope.get(RESERVATION)
    return share


def unread_reason(request: HttpRequest) -> UnreadBody | None:
    """Return why the body was not read to its end; None if it was."""
    why: UnreadBody | None = getattr(request, "scope", {}).get(UNREAD_REASON)
    return why


async def read_body(scope: ASGIScope, receive: ASGIReceive) -> IO[bytes]:
    """Return the body in a file that is on the disk once it is large, and nowhere when it is closed.

    It is empty if the body could not be read to its end; then `unread_reason` says why.

    Raises:
        RequestAborted: the client went away.
    """
    body = _new_file()
    try:
        await _copy_body(body, with_read_timeout(scope, receive), reservation_of(scope))
    except UnreadBody as why:
        _discard(body)
        scope[UNREAD_REASON] = why
        return _new_file()
    except BaseException:
        _discard(body)
        raise
    return body


def _new_file() -> IO[bytes]:
    return SpooledTemporaryFile(settings.FILE_UPLOAD_MAX_MEMORY_SIZE)  # noqa: SIM115 (the caller closes it)


async def _copy_body(body: IO[bytes], receive: ASGIReceive, share: BodyReservation | None) -> None:
    more, waiting = True, bytearray()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        more = message.get("more_body", False)
        piece = message.get("body", b"")
        if share is not None:
            share.reserve(len(piece))
        waiting += piece
        if len(waiting) >= WRITE_CHUNK_BYTES:
            await asyncio.to_thread(_write, body, waiting)
            waiting = bytearray()
    _write(body, waiting)
    with _disk_full_mapped():
        body.seek(0)


def _write(body: IO[bytes], piece: bytearray) -> None:
    with _disk_full_mapped():
        body.write(piece)


def _discard(body: IO[bytes]) -> None:
    with suppress(OSError):
        # It would write what it holds back, which no disk takes and nobody wants.
        body.close()


@contextmanager
def _disk_full_mapped() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("body_storage_failed", error=type(error).__name__, why=error.strerror)
        raise StorageFull from error


def with_read_timeout(scope: ASGIScope, receive: ASGIReceive) -> ASGIReceive:
    """Return a `receive` that raises `BodyTimeout` once it had to wait too long: for one piece, or for all in all.

    Only waiting counts. What we are slow with ourselves is not the client's fault.
    """
    longest = float(settings.BODY_READ_TIMEOUT_SECONDS)
    longest_in_all = MAX_UNVERIFIED_SECONDS if reservation_of(scope) else float("inf")
    waited, came = 0.0, 0

    async def receive_timely() -> ASGIMessage:
        nonlocal waited, came
        in_all = min(longest + came / MIN_BYTES_PER_SECOND, longest_in_all)
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(longest, in_all - waited)):
                message = await receive()
        except TimeoutError as error:
            raise body_timeout(came) from error
        waited += time.monotonic() - began
        came += len(message.get("body", b""))
        return message

    return receive_timely

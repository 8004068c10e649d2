"""Bodies as they come in: on the disk once they are large, and never waited for without end.

A body that is not read to its end is answered like any other request: the scope says why (`unread`).
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

from api.body_limit import Message, Receive, Scope
from api.errors import NoRoom, TooManyUnproven, TooSlow, Unread

log = structlog.get_logger(__name__)

UNREAD, SHARE = "nightdesk.unread", "nightdesk.share"

#: How much of a large body is gathered, before a thread writes it to the disk.
WRITTEN_AT_ONCE = 1_048_576
#: Who sends less than this on the average is taken for one that only wants to keep us busy.
SLOWEST_BYTES_PER_SECOND = 4096
#: No signature can still be accepted later than this: its time may be a minute off in both directions.
LONGEST_UNPROVEN_SECONDS = 120


class Room:
    """How much may be held, all together, of bodies whose signature can be checked only when they are whole."""

    def __init__(self) -> None:
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, number: int) -> None:
        """Take so many bytes. Raises `TooManyUnproven`."""
        with self._lock:
            if self._taken + number > settings.MAX_UNPROVEN_BYTES:
                raise TooManyUnproven
            self._taken += number

    def give_back(self, number: int) -> None:
        with self._lock:
            self._taken -= number


class Share:
    """What one body takes of the room, until its sender is proven or its request is over."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    def take(self, number: int) -> None:
        """Take so many bytes more. Raises `TooManyUnproven`."""
        self._room.take(number)
        self._taken += number

    def give_back(self) -> None:
        """Give all of it back; once more does nothing."""
        taken, self._taken = self._taken, 0
        self._room.give_back(taken)


def too_slow(came: int) -> TooSlow:
    return TooSlow(f"The body did not come in time: {came:,} bytes of it did. Send it again.")


def share_of(scope: Scope) -> Share | None:
    """Return the share of a body whose sender is not proven; None for all others."""
    share: Share | None = scope.get(SHARE)
    return share


def unread(request: HttpRequest) -> Unread | None:
    """Return why the body was not read to its end; None if it was."""
    why: Unread | None = getattr(request, "scope", {}).get(UNREAD)
    return why


async def read_body(scope: Scope, receive: Receive) -> IO[bytes]:
    """Return the body in a file that is on the disk once it is large, and nowhere when it is closed.

    It is empty if the body could not be read to its end; then `unread` says why.

    Raises:
        RequestAborted: the client went away.
    """
    body = _new_file()
    try:
        await _fill(body, timely(scope, receive), share_of(scope))
    except Unread as why:
        _drop(body)
        scope[UNREAD] = why
        return _new_file()
    except BaseException:
        _drop(body)
        raise
    return body


def _new_file() -> IO[bytes]:
    return SpooledTemporaryFile(settings.FILE_UPLOAD_MAX_MEMORY_SIZE)  # noqa: SIM115 (the caller closes it)


async def _fill(body: IO[bytes], receive: Receive, share: Share | None) -> None:
    more, waiting = True, bytearray()
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        more = message.get("more_body", False)
        piece = message.get("body", b"")
        if share is not None:
            share.take(len(piece))
        waiting += piece
        if len(waiting) >= WRITTEN_AT_ONCE:
            await asyncio.to_thread(_write, body, waiting)
            waiting = bytearray()
    _write(body, waiting)
    with _room_wanted():
        body.seek(0)


def _write(body: IO[bytes], piece: bytearray) -> None:
    with _room_wanted():
        body.write(piece)


def _drop(body: IO[bytes]) -> None:
    with suppress(OSError):
        # It would write what it holds back, which no disk takes and nobody wants.
        body.close()


@contextmanager
def _room_wanted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("body_not_stored", error=type(error).__name__, why=error.strerror)
        raise NoRoom from error


def timely(scope: Scope, receive: Receive) -> Receive:
    """Return a `receive` that raises `TooSlow` once it had to wait too long: for one piece, or for all in all.

    Only waiting counts. What we are slow with ourselves is not the client's fault.
    """
    longest = float(settings.BODY_WAIT_SECONDS)
    longest_in_all = LONGEST_UNPROVEN_SECONDS if share_of(scope) else float("inf")
    waited, came = 0.0, 0

    async def receive_timely() -> Message:
        nonlocal waited, came
        in_all = min(longest + came / SLOWEST_BYTES_PER_SECOND, longest_in_all)
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(longest, in_all - waited)):
                message = await receive()
        except TimeoutError as error:
            raise too_slow(came) from error
        waited += time.monotonic() - began
        came += len(message.get("body", b""))
        return message

    return receive_timely

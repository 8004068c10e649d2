"""One HTTP exchange with a provider, under the four timeouts of its call. The only place that knows foreign exceptions.

        connect            first byte                idle  idle  idle
start ───────────▶ sent ───────────────▶ byte ─────────▶ ────▶ ────▶ end
  └───────────────────────────── total ───────────────────────────────┘
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from core.http import ClientClosed, ProviderClient, Response, watched_progress
from providers.errors import Ambiguous, BadResponse, Interrupted, ProviderError, TimedOut, Transient
from providers.types import CallContext

#: No answer is near this; without a bound a broken server could fill the memory.
ANSWER_BYTES = 64 * 1024 * 1024
ERROR_BYTES = 64 * 1024
#: How long to wait, after the last event, for the end of the body: it lets the connection be used again.
DRAIN_SECONDS = 0.2

#: What a dialect makes of an answer with an error status.
ToError: TypeAlias = Callable[[int, Mapping[str, str], bytes], ProviderError]

#: Everything that aiohttp, its parser and the socket may raise. OSError includes TimeoutError and ssl.SSLError.
FOREIGN_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)

#: The answer is there, and is no HTTP, or not what its headers say.
_GARBAGE = (aiohttp.ClientResponseError, HttpProcessingError)


def to_provider_error(error: Exception, *, sent: bool, answered: bool) -> ProviderError:
    """Return what a foreign exception means; `sent`: the request may have left us, `answered`: some answer came."""
    name = type(error).__name__
    if not sent:
        return Transient(f"The provider could not be reached ({name}).")
    if answered:
        return Interrupted(f"The connection was lost in the middle of the answer ({name}).")
    if isinstance(error, TimeoutError):
        return TimedOut(f"The provider did not answer in time ({name}).")
    if isinstance(error, _GARBAGE):
        return BadResponse(f"The provider's answer is not valid HTTP ({name}).")
    return Ambiguous(f"The connection was lost before the provider answered ({name}).")


class Answer:
    """An answer whose status was good: its body, within the timeouts and the size that are allowed."""

    def __init__(self, response: Response, call: CallContext, started_at: float) -> None:
        self.content_type = response.headers.get("content-type", "")
        #: Set it once something of the answer was passed on: what goes wrong from then on is an interruption.
        self.answered = False
        self._response = response
        self._call = call
        self._started_at = started_at
        self._size = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. Raises ProviderError."""
        while chunk := await self._next():
            yield chunk

    async def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        while chunk := await self._next():
            self.answered = True
            body += chunk
        return bytes(body)

    async def drain(self) -> None:
        """Wait a moment for the end of a body whose last event has come."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await self._response.read_some():
                    pass
        except (*FOREIGN_ERRORS, ProviderError):
            return  # It has ended, well or not: the answer is whole.

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._next_deadline()):
                chunk = await self._response.read_some()
        except FOREIGN_ERRORS as error:
            raise to_provider_error(error, sent=True, answered=self.answered) from error
        self._size += len(chunk)
        if self._size > ANSWER_BYTES:
            raise BadResponse(f"The provider's answer is longer than {ANSWER_BYTES} bytes.")
        return chunk

    def _next_deadline(self) -> float:
        """Return when the next byte must have come, in the loop's time."""
        if self._size:
            byte_due = asyncio.get_running_loop().time() + self._call.idle_seconds
        else:
            byte_due = self._started_at + self._call.first_byte_seconds
        return min(byte_due, self._started_at + self._call.total_seconds)


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent to a provider."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@asynccontextmanager
async def exchange(http: ProviderClient, request: Post, call: CallContext, to_error: ToError) -> AsyncIterator[Answer]:
    """Send a request and give its answer. The connection is free, or closed, when the block is left, however it is."""
    started_at = asyncio.get_running_loop().time()
    response = await _send(http, request, call, started_at)
    try:
        if response.status != HTTPStatus.OK:
            raise to_error(response.status, response.headers, await _error_body(response, call, started_at))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadResponse("The provider compressed its answer, though it was asked not to.")
        yield Answer(response, call, started_at)
    finally:
        # How the closing goes changes nothing any more, and must not hide what was raised above.
        with suppress(*FOREIGN_ERRORS):
            await response.aclose()


async def _send(http: ProviderClient, request: Post, call: CallContext, started_at: float) -> Response:
    connect_seconds = min(call.connect_seconds, call.total_seconds)
    due = started_at + min(call.first_byte_seconds, call.total_seconds)
    with watched_progress() as progress:
        try:
            async with asyncio.timeout_at(due):
                return await http.send(request.url, request.headers, request.body, connect_seconds=connect_seconds)
        except ClientClosed as error:
            raise Transient("This provider's client is closed; it was replaced or the process ends.") from error
        except FOREIGN_ERRORS as error:
            raise to_provider_error(error, sent=progress.connected, answered=False) from error


async def _error_body(response: Response, call: CallContext, started_at: float) -> bytes:
    """Return the beginning of an error's body, or what came of it: the status says most already."""
    body = bytearray()
    try:
        async for chunk in Answer(response, call, started_at).chunks():
            body += chunk
            if len(body) >= ERROR_BYTES:
                break
    except ProviderError:
        pass
    return bytes(body[:ERROR_BYTES])

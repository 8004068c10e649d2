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

from core.provider_http import ClientClosed, ProviderClient, ProviderResponse, track_connection
from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ProviderError,
    ProviderTimeout,
    ResponseInterrupted,
    TransientFailure,
)
from providers.types import CallContext

#: No answer is near this; without a bound a broken server could fill the memory.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024
#: How long to wait, after the last event, for the end of the body: it lets the connection be used again.
DRAIN_SECONDS = 0.2

#: What a dialect makes of an answer with an error status.
ErrorMapper: TypeAlias = Callable[[int, Mapping[str, str], bytes], ProviderError]

#: Everything that aiohttp, its parser and the socket may raise. OSError includes TimeoutError and ssl.SSLError.
TRANSPORT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)

#: The answer is there, and is no HTTP, or not what its headers say.
_INVALID_HTTP_ERRORS = (aiohttp.ClientResponseError, HttpProcessingError)


def map_transport_error(error: Exception, *, sent: bool, response_started: bool) -> ProviderError:
    """Map a foreign exception. `sent`: the request may have left us; `response_started`: part of it arrived."""
    name = type(error).__name__
    if not sent:
        return TransientFailure(f"The provider could not be reached ({name}).")
    if response_started:
        return ResponseInterrupted(f"The connection was lost in the middle of the answer ({name}).")
    if isinstance(error, TimeoutError):
        return ProviderTimeout(f"The provider did not answer in time ({name}).")
    if isinstance(error, _INVALID_HTTP_ERRORS):
        return BadResponse(f"The provider's answer is not valid HTTP ({name}).")
    return AmbiguousOutcome(f"The connection was lost before the provider answered ({name}).")


class UpstreamResponse:
    """An answer whose status was good: its body, within the timeouts and the size that are allowed."""

    def __init__(self, response: ProviderResponse, call: CallContext, started_at: float) -> None:
        self.content_type = response.headers.get("content-type", "")
        #: Set it once something of the answer was passed on: what goes wrong from then on is an interruption.
        self.response_started = False
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
            self.response_started = True
            body += chunk
        return bytes(body)

    async def drain(self) -> None:
        """Wait a moment for the end of a body whose last event has come."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await self._response.read_chunk():
                    pass
        except (*TRANSPORT_ERRORS, ProviderError):
            return  # It has ended, well or not: the answer is whole.

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._next_deadline()):
                chunk = await self._response.read_chunk()
        except TRANSPORT_ERRORS as error:
            raise map_transport_error(error, sent=True, response_started=self.response_started) from error
        self._size += len(chunk)
        if self._size > MAX_RESPONSE_BYTES:
            raise BadResponse(f"The provider's answer is longer than {MAX_RESPONSE_BYTES} bytes.")
        return chunk

    def _next_deadline(self) -> float:
        """Return when the next byte must have come, in the loop's time."""
        if self._size:
            byte_due = asyncio.get_running_loop().time() + self._call.idle_seconds
        else:
            byte_due = self._started_at + self._call.first_byte_seconds
        return min(byte_due, self._started_at + self._call.total_seconds)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What is sent to a provider."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@asynccontextmanager
async def exchange(
    http: ProviderClient, request: UpstreamRequest, call: CallContext, to_error: ErrorMapper
) -> AsyncIterator[UpstreamResponse]:
    """Send a request and give its answer. The connection is free, or closed, when the block is left, however it is."""
    started_at = asyncio.get_running_loop().time()
    response = await _send(http, request, call, started_at)
    try:
        if response.status != HTTPStatus.OK:
            raise to_error(response.status, response.headers, await _error_body(response, call, started_at))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadResponse("The provider compressed its answer, though it was asked not to.")
        yield UpstreamResponse(response, call, started_at)
    finally:
        # How the closing goes changes nothing any more, and must not hide what was raised above.
        with suppress(*TRANSPORT_ERRORS):
            await response.aclose()


async def _send(
    http: ProviderClient, request: UpstreamRequest, call: CallContext, started_at: float
) -> ProviderResponse:
    connect_seconds = min(call.connect_seconds, call.total_seconds)
    due = started_at + min(call.first_byte_seconds, call.total_seconds)
    with track_connection() as progress:
        try:
            async with asyncio.timeout_at(due):
                return await http.send(request.url, request.headers, request.body, connect_seconds=connect_seconds)
        except ClientClosed as error:
            raise TransientFailure("This provider's client is closed; it was replaced or the process ends.") from error
        except TRANSPORT_ERRORS as error:
            raise map_transport_error(error, sent=progress.connected, response_started=False) from error


async def _error_body(response: ProviderResponse, call: CallContext, started_at: float) -> bytes:
    """Return the beginning of an error's body, or what came of it: the status says most already."""
    body = bytearray()
    try:
        async for chunk in UpstreamResponse(response, call, started_at).chunks():
            body += chunk
            if len(body) >= MAX_ERROR_BODY_BYTES:
                break
    except ProviderError:
        pass
    return bytes(body[:MAX_ERROR_BODY_BYTES])

"""One HTTP exchange with a provider, under the four timeouts of its call.

The only module that handles aiohttp's exceptions: it maps them to `ProviderError`.

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

#: Far above any response; without a limit a broken server could exhaust memory.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024
#: How long to wait for the end of the body after the last event, so that the connection can be reused.
DRAIN_SECONDS = 0.2

#: Maps a response with an error status (status, headers, body) to an error of its dialect.
ErrorMapper: TypeAlias = Callable[[int, Mapping[str, str], bytes], ProviderError]

#: Everything that aiohttp, its parser and the socket may raise. OSError includes TimeoutError and ssl.SSLError.
TRANSPORT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)

#: A response arrived, but it is not valid HTTP or contradicts its headers.
_INVALID_HTTP_ERRORS = (aiohttp.ClientResponseError, HttpProcessingError)


def map_transport_error(error: Exception, *, request_sent: bool, response_started: bool) -> ProviderError:
    """Map an exception of aiohttp or the socket.

    `request_sent`: the request may have left this host; `response_started`: part of the response arrived.
    """
    name = type(error).__name__
    if not request_sent:
        return TransientFailure(f"The provider could not be reached ({name}).")
    if response_started:
        return ResponseInterrupted(f"The connection was lost in the middle of the answer ({name}).")
    if isinstance(error, TimeoutError):
        return ProviderTimeout(f"The provider did not answer in time ({name}).")
    if isinstance(error, _INVALID_HTTP_ERRORS):
        return BadResponse(f"The provider's answer is not valid HTTP ({name}).")
    return AmbiguousOutcome(f"The connection was lost before the provider answered ({name}).")


class UpstreamResponse:
    """A response with status 200: its body, within the timeouts and the size limit."""

    def __init__(self, response: ProviderResponse, call: CallContext, started_at: float) -> None:
        self.content_type = response.headers.get("content-type", "")
        #: To be set once part of the response was passed on: any later error is an interruption.
        self.response_started = False
        self._response = response
        self._call = call
        self._started_at = started_at
        self._size = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives. Raises ProviderError."""
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
        """Wait briefly for the end of a body whose last event has arrived."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await self._response.read_chunk():
                    pass
        except (*TRANSPORT_ERRORS, ProviderError):
            return  # However the body ended, the answer is complete.

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._next_deadline()):
                chunk = await self._response.read_chunk()
        except TRANSPORT_ERRORS as error:
            raise map_transport_error(error, request_sent=True, response_started=self.response_started) from error
        self._size += len(chunk)
        if self._size > MAX_RESPONSE_BYTES:
            raise BadResponse(f"The provider's answer is longer than {MAX_RESPONSE_BYTES} bytes.")
        return chunk

    def _next_deadline(self) -> float:
        """Return the deadline of the next byte, in the event loop's time."""
        if self._size:
            byte_due = asyncio.get_running_loop().time() + self._call.idle_seconds
        else:
            byte_due = self._started_at + self._call.first_byte_seconds
        return min(byte_due, self._started_at + self._call.total_seconds)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """An HTTP request to a provider."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@asynccontextmanager
async def exchange(
    http: ProviderClient, request: UpstreamRequest, call: CallContext, to_error: ErrorMapper
) -> AsyncIterator[UpstreamResponse]:
    """Send a request and yield the response. When the block is left, the connection is back in the pool or closed."""
    started_at = asyncio.get_running_loop().time()
    response = await _send(http, request, call, started_at)
    try:
        if response.status != HTTPStatus.OK:
            raise to_error(response.status, response.headers, await _error_body(response, call, started_at))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadResponse("The provider compressed its response although the request did not allow it.")
        yield UpstreamResponse(response, call, started_at)
    finally:
        # A failing close changes nothing any more, and must not hide an exception raised above.
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
            raise TransientFailure(
                "The client is closed: the provider was changed, or the process is shutting down."
            ) from error
        except TRANSPORT_ERRORS as error:
            raise map_transport_error(error, request_sent=progress.connected, response_started=False) from error


async def _error_body(response: ProviderResponse, call: CallContext, started_at: float) -> bytes:
    """Return the beginning of an error response's body, as much as arrived: the status alone says most."""
    body = bytearray()
    try:
        async for chunk in UpstreamResponse(response, call, started_at).chunks():
            body += chunk
            if len(body) >= MAX_ERROR_BODY_BYTES:
                break
    except ProviderError:
        pass
    return bytes(body[:MAX_ERROR_BODY_BYTES])

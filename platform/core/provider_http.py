"""The HTTP client for providers: aiohttp's connections, one client per provider and event loop."""

import asyncio
import functools
import select
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

#: Shorter than the idle limits of vendors' load balancers (60 s and more), so that they seldom close first.
KEEPALIVE_SECONDS = 15.0
#: Vendors send long cookie and policy headers; aiohttp's own bound of 8 KiB a field is near to some of them.
HEADER_FIELD_BYTES = 32 * 1024
BASE_HEADERS = {"user-agent": "nightdesk", "accept": "*/*", "accept-encoding": "identity"}


class ClientClosed(Exception):
    """The client was closed; it was replaced, or the process ends."""


@dataclass(slots=True)
class ConnectionProgress:
    """How far one exchange came. False means that certainly nothing was sent."""

    connected: bool = True


_progress: ContextVar[ConnectionProgress | None] = ContextVar("provider_exchange", default=None)


@contextmanager
def track_connection() -> Iterator[ConnectionProgress]:
    """Note in the yielded object whether requests of this task got a connection.

    It starts as connected, and only our own connector takes that back: with any other transport a fault counts as
    "it may have been sent", which is the careful reading.
    """
    progress = ConnectionProgress()
    token = _progress.set(progress)
    try:
        yield progress
    finally:
        _progress.reset(token)


class ProviderResponse:
    """An answer whose body is still to be read; `aclose` it in any case."""

    def __init__(self, inner: aiohttp.ClientResponse) -> None:
        self._inner = inner
        self.status = inner.status
        #: Found whatever their case.
        self.headers: Mapping[str, str] = inner.headers

    async def read_chunk(self) -> bytes:
        """Return what came of the body since, waiting for some; empty at its end. Raises what aiohttp raises."""
        return await self._inner.content.readany()

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        await self._inner.__aexit__(None, None, None)


class ProviderClient:
    """Posts to one provider. No redirects, no cookies (they would tie unrelated calls together), no proxies of the
    environment. It belongs to the event loop that first uses it; close it there.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self.is_closed = False

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, connect_seconds: float
    ) -> ProviderResponse:
        """Post the body and return the answer.

        `connect_seconds` bounds all of connecting: DNS, and the wait for a free connection too. The rest has no bound
        here. Raises what aiohttp raises, and `ClientClosed`.
        """
        if self.is_closed:
            raise ClientClosed
        if self._session is None:
            # Not before: a session must be made inside the loop that uses it.
            self._session = _new_session()
        answer = await self._session.post(
            url,
            headers={**BASE_HEADERS, **headers},
            data=body,
            allow_redirects=False,
            timeout=_timeouts(connect_seconds),
        )
        return ProviderResponse(answer)

    async def aclose(self) -> None:
        """Close every connection. Nothing can be sent any more."""
        self.is_closed = True
        if self._session is not None:
            await self._session.close()


@functools.lru_cache(maxsize=64)
def _timeouts(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_connect=connect_seconds)


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        max_field_size=HEADER_FIELD_BYTES,
    )


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # One for all: reading the bundle of certificates takes tens of milliseconds.
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


class _Connector(aiohttp.TCPConnector):
    """Hands out only connections that are still alive, and notes when one was handed out.

    aiohttp repeats a request on a fresh connection only for idempotent methods; a POST on a kept connection which the
    server has just closed ends in ServerDisconnectedError, and nobody can tell any more whether it was processed. So
    before we hand a used connection out we ask the system whether something has arrived there, as a close would, and
    if so let the event loop see what it is. What remains is the close that crosses our request on the wire.
    """

    def __init__(self) -> None:
        super().__init__(
            # None: who has too many at once is told so at the door. A call that waits here for another's connection
            # would look like a provider that cannot be reached, and be held against it.
            limit=0,
            limit_per_host=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            ttl_dns_cache=60,
            ssl=_ssl_context(),
        )
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109
        if (progress := _progress.get()) is not None:
            progress.connected = False
        connection = await super().connect(req, traces, timeout)
        while not await self._is_alive(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if progress is not None:
            progress.connected = True
        return connection

    async def _is_alive(self, connection: Connection) -> bool:
        protocol = connection.protocol
        assert protocol is not None
        if protocol not in self._used:
            self._used.add(protocol)
            return True
        if not _has_pending_data(protocol):
            return protocol.is_connected()
        try:
            # The loop polls its sockets once between two rounds, and runs what it found in the second.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException:
            connection.close()
            raise
        return protocol.is_connected()


def _has_pending_data(protocol: ResponseHandler) -> bool:
    """Say whether something has arrived that the event loop has yet to look at; also where that cannot be told."""
    if protocol.transport is None:
        return True
    arrived = select.poll()
    try:
        arrived.register(protocol.transport.get_extra_info("socket"), select.POLLIN)
        return bool(arrived.poll(0))
    except (OSError, TypeError, ValueError):
        return True

"""HTTP client for providers, on aiohttp: one client, with its connection pool, per provider and event loop."""

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

#: Shorter than the idle timeouts of vendors' load balancers (60 s and more), so that they rarely close first.
KEEPALIVE_SECONDS = 15.0
#: Vendors send long cookie and policy headers; aiohttp's default limit of 8 KiB per field is close to some of them.
HEADER_FIELD_BYTES = 32 * 1024
BASE_HEADERS = {"user-agent": "nightdesk", "accept": "*/*", "accept-encoding": "identity"}


class ClientClosed(Exception):
    """The client was closed: it was replaced, or the process is shutting down."""


@dataclass(slots=True)
class ConnectionProgress:
    """How far one exchange got. False means that certainly nothing was sent."""

    connected: bool = True


_progress: ContextVar[ConnectionProgress | None] = ContextVar("provider_exchange", default=None)


@contextmanager
def track_connection() -> Iterator[ConnectionProgress]:
    """Record in the yielded object whether requests of this task got a connection.

    It starts as connected, and only our own connector resets that: with any other transport a failure counts as "it may
    have been sent", which is the safe assumption.
    """
    progress = ConnectionProgress()
    token = _progress.set(progress)
    try:
        yield progress
    finally:
        _progress.reset(token)


class ProviderResponse:
    """A response whose body has not been read yet; call `aclose` in any case."""

    def __init__(self, inner: aiohttp.ClientResponse) -> None:
        self._inner = inner
        self.status = inner.status
        #: Case-insensitive.
        self.headers: Mapping[str, str] = inner.headers

    async def read_chunk(self) -> bytes:
        """Return the next part of the body, or nothing at its end. Raises the errors of aiohttp."""
        return await self._inner.content.readany()

    async def aclose(self) -> None:
        """Return the connection to the pool if the body was read to its end, else close it."""
        await self._inner.__aexit__(None, None, None)


class ProviderClient:
    """Sends POST requests to one provider, without redirects, cookies (they would link unrelated calls) or proxies of
    the environment. It belongs to the event loop that first uses it; close it there.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self.is_closed = False

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, connect_seconds: float
    ) -> ProviderResponse:
        """Send the body and return the response.

        `connect_seconds` limits connecting, with DNS and the wait for a free connection. The rest has no timeout here.
        Raises the errors of aiohttp, and `ClientClosed`.
        """
        if self.is_closed:
            raise ClientClosed
        if self._session is None:
            # Not earlier: a session must be created inside the loop that uses it.
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
        """Close every connection. Nothing can be sent after that."""
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
    # One for all clients: loading the certificate bundle takes tens of milliseconds.
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


class _Connector(aiohttp.TCPConnector):
    """A connection pool that reuses only connections that are still alive, and records when one was acquired.

    aiohttp repeats a request on a new connection only for idempotent methods; a POST on a pooled connection that the
    server has just closed ends in ServerDisconnectedError, and whether it was processed is unknown. So before a used
    connection is acquired, we ask the system whether something has arrived on it, as a close would, and if so let the
    event loop process it. What remains is a close that crosses our request on the wire.
    """

    def __init__(self) -> None:
        super().__init__(
            # No limit: concurrency is limited on admission. A call that waited here for another call's connection
            # would look like an unreachable provider, and count as its failure.
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
            # The loop polls its sockets between two iterations, and runs their callbacks in the second.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException:
            connection.close()
            raise
        return protocol.is_connected()


def _has_pending_data(protocol: ResponseHandler) -> bool:
    """Return whether the socket has data that the event loop has not read yet, or whether that is unknown."""
    if protocol.transport is None:
        return True
    arrived = select.poll()
    try:
        arrived.register(protocol.transport.get_extra_info("socket"), select.POLLIN)
        return bool(arrived.poll(0))
    except (OSError, TypeError, ValueError):
        return True

"""SSRF guard: an HTTP client for URLs that tenants choose. It reaches public addresses only, within a deadline.

* NoResponse                no HTTP response arrived; the message is safe to show to the tenant
  + BlockedAddress          the URL or its address must not be reached; nothing was sent
  + ConnectionFailed        no connection: name, network or certificate
  + ConnectionInterrupted   the connection was closed, or the response is not HTTP
  + DeadlineExceeded        the total time passed before the status of the response
* RejectedUrl               from `check_url`, before any attempt
"""

import asyncio
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeAlias

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Lookup: TypeAlias = Callable[..., Sequence[tuple[Any, ...]]]

#: The only part of the IPv6 space that is allocated for public use (IANA); all else is special or unused.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
#: What is not public within it. Tunnels (Teredo, 6to4) are blocked: they embed an IPv4 address that is not checked.
BLOCKED_IPV6 = tuple(map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: What is not public, some of it missing in the list of some Python versions.
BLOCKED_IPV4 = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            # Azure's host has a public address: only machines in that cloud reach it, and it serves secrets.
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)

#: A name of labels, or the characters of an IPv6 address.
HOST = re.compile(r"(?=.{1,254}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f:.]+")
MAX_URL_LENGTH = 2000
CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 16_384
#: Threads for DNS look-ups. The client has its own, so that a name server that hangs blocks no other threads.
LOOKUP_THREADS = 8


class NoResponse(Exception): ...


class BlockedAddress(NoResponse): ...


class ConnectionFailed(NoResponse): ...


class ConnectionInterrupted(NoResponse): ...


class DeadlineExceeded(NoResponse): ...


class RejectedUrl(ValueError): ...


class _BlockedBySsrfGuard(OSError):
    """Raised inside aiohttp, which propagates only `OSError` from there."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a client may reach: public addresses, and some configured networks."""

    networks: tuple[Network, ...] = ()
    #: Empty: any port.
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def parse(cls, networks: Iterable[str], ports: Iterable[int]) -> "EgressPolicy":
        """Parse networks from settings. Raises `ValueError` for one that is not a network."""
        return cls(tuple(ipaddress.ip_network(text) for text in networks), frozenset(ports))

    def allows_port(self, port: int) -> bool:
        return not self.ports or port in self.ports


@dataclass(frozen=True, slots=True)
class CappedResponse:
    """A response. A body that was interrupted, too slow or too long is truncated."""

    status: int
    headers: httpx.Headers
    #: The first bytes of the body, as received.
    head: bytes


# Policy


def is_allowed(ip: str, networks: Sequence[Network] = ()) -> bool:
    """True for a public address, or one of the networks; False for anything else, also a text that is no address."""
    try:
        address = _unmap_ipv4(ipaddress.ip_address(ip))
    except ValueError:
        return False
    # An address is in no network of the other IP version, so both can be compared.
    return any(address in network for network in networks) or _is_public(address)


def _unmap_ipv4(address: Address) -> Address:
    """Return the IPv4 address in `::ffff:a.b.c.d`, which the kernel connects to."""
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 6:
        return address in PUBLIC_IPV6 and not any(address in network for network in BLOCKED_IPV6)
    return not any(address in network for network in BLOCKED_IPV4)


def check_url(url: str, egress: EgressPolicy) -> None:
    """Check a URL before it is stored. What its name resolves to is checked for every connection, not here.

    Raises:
        RejectedUrl: it can never be reached; the message says why.
    """
    if len(url) > MAX_URL_LENGTH:
        raise RejectedUrl(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RejectedUrl(f"This is not a URL: {error}") from error
    _check_parts(parsed, egress)
    literal = _literal_address(parsed.host)
    if literal is not None and not is_allowed(literal, egress.networks):
        raise RejectedUrl(f"{parsed.host} is not a public address. Use a host that is reachable from the internet.")


def _check_parts(url: httpx.URL, egress: EgressPolicy) -> None:
    if url.scheme not in ("http", "https"):
        raise RejectedUrl("The URL must begin with https:// or http://.")
    if not url.host:
        raise RejectedUrl("The URL has no host.")
    if not HOST.fullmatch(url.raw_host.decode("ascii")):
        raise RejectedUrl("The URL's host is neither a name nor an address.")
    if url.userinfo:
        raise RejectedUrl("The URL must not contain a user name or password.")
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    if not egress.allows_port(port):
        raise RejectedUrl(f"Port {port} is not allowed; use {' or '.join(map(str, sorted(egress.ports)))}.")


def _literal_address(host: str) -> str | None:
    """Return the address that a host spells out, in any spelling that the C library accepts (`127.1`, `0x7f000001`)."""
    name = host.rstrip(".").lower()
    if ":" in name:
        return name
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except (OSError, UnicodeError):
        return None


# The client


def guarded_client(
    egress: EgressPolicy, *, lookup: Lookup = socket.getaddrinfo, verify: ssl.SSLContext | bool = True
) -> httpx.AsyncClient:
    """Return a client for the life of the process, without redirects, cookies and proxies of the environment.

    It must be closed (`aclose`). `lookup` has the signature of `socket.getaddrinfo`.
    """
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(
        transport=_GuardedTransport(egress, lookup, verify),
        trust_env=False,
        follow_redirects=False,
        cookies=no_cookies,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        # The head of the body is stored for people to read, and never decompressed.
        headers={"Accept": "*/*", "Accept-Encoding": "identity"},
    )


class _GuardedTransport(AiohttpTransport):
    """The aiohttp transport, with a connector that checks the exact address that it connects to."""

    def __init__(self, egress: EgressPolicy, lookup: Lookup, verify: ssl.SSLContext | bool) -> None:
        super().__init__(verify=verify, trust_env=False, client=self._open_session)
        self._egress = egress
        self._resolver = _GuardedResolver(egress, lookup)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            _check_parts(request.url, self._egress)
            return await super().handle_async_request(request)
        except RejectedUrl as error:
            raise BlockedAddress(str(error)) from error
        except httpx.TransportError as error:
            if refusal := _block_reason_in(error):
                raise BlockedAddress(str(refusal)) from error
            raise

    async def aclose(self) -> None:
        await super().aclose()
        await self._resolver.close()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            socket_factory=self._open_socket,
            ssl=self.ssl_context,
            limit=0,
            # Each exchange has its own connection: its address is checked each time, and none is stale.
            force_close=True,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    def _open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        # aiohttp connects the socket to exactly this address next, without another look-up in between.
        family, kind, protocol, _, address = info
        if not is_allowed(address[0], self._egress.networks) or not self._egress.allows_port(address[1]):
            raise _BlockedBySsrfGuard("The host's address is not public.")
        return socket.socket(family, kind, protocol)


class _GuardedResolver(AbstractResolver):
    """Resolves names, and blocks all addresses of a name if one is not allowed: a mixed result is an attack."""

    def __init__(self, egress: EgressPolicy, lookup: Lookup) -> None:
        self._egress = egress
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(self._lookup, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        entries = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        addresses = list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in entries))
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "The host's name has no address.")
        if not all(is_allowed(address, self._egress.networks) for _, address in addresses):
            raise _BlockedBySsrfGuard("The host's name resolves to an address that is not public.")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=version, proto=0, flags=socket.AI_NUMERICHOST)
            for version, address in addresses
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _block_reason_in(error: httpx.TransportError) -> _BlockedBySsrfGuard | None:
    cause = error.__cause__
    inner = cause.os_error if isinstance(cause, aiohttp.ClientConnectorError) else None
    return inner if isinstance(inner, _BlockedBySsrfGuard) else None


# One exchange


async def post_capped(
    client: httpx.AsyncClient,
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    total_seconds: float,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> CappedResponse:
    """Send the body, and return the status and the head of the body of the response.

    One deadline covers look-up, connection, headers and body. Before the status it raises an error; after that it ends
    reading, because the status is the result.

    Raises:
        NoResponse: see the tree above; no foreign error escapes.
    """
    deadline = asyncio.get_running_loop().time() + total_seconds
    try:
        async with asyncio.timeout_at(deadline):
            request = client.build_request("POST", url, content=body, headers=dict(headers))
            response = await client.send(request, stream=True)
    except TimeoutError as error:
        raise DeadlineExceeded(f"No response within {total_seconds:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
        raise to_no_response(error) from error
    head = await _read_head(response, max_body_bytes, deadline)
    return CappedResponse(response.status_code, response.headers, head)


async def _read_head(response: httpx.Response, max_body_bytes: int, deadline: float) -> bytes:
    """Return the body up to the cap, its end, an interruption or the deadline; then close the connection."""
    head = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            try:
                # Raw, so that a small body cannot decompress into a large one.
                async for chunk in response.aiter_raw():
                    head += chunk[: max_body_bytes - len(head)]
                    if len(head) >= max_body_bytes:
                        break
            finally:
                await response.aclose()
    except (TimeoutError, httpx.HTTPError, aiohttp.ClientError, OSError):
        pass
    return bytes(head)


def to_no_response(error: Exception) -> NoResponse:
    """Translate an error of httpx, aiohttp or the system. The message never contains an address from a look-up."""
    # The transport wraps aiohttp's errors in httpx's, which are less specific (a refused connection is a
    # "ConnectTimeout" there), so their causes are matched.
    match error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return ConnectionFailed("The host's name could not be resolved.")
        case aiohttp.ClientConnectorCertificateError() | ssl.CertificateError():
            return ConnectionFailed("The host's TLS certificate is not valid for it.")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return ConnectionFailed("The TLS handshake failed.")
        case aiohttp.ClientConnectorError() as refused:
            return ConnectionFailed(
                f"The connection failed: {os.strerror(refused.errno) if refused.errno else 'no reason given'}."
            )
        case aiohttp.ServerTimeoutError():
            return ConnectionFailed(f"No connection within {CONNECT_SECONDS:g} s.")
        case aiohttp.InvalidURL() | httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return BlockedAddress("The URL cannot be used.")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | ValueError():
            return ConnectionInterrupted("The response is not valid HTTP.")
        case _:
            return ConnectionInterrupted("The connection was closed before a response arrived.")

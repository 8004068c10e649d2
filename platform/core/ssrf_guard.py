"""An HTTP client for addresses that strangers choose: it reaches public hosts only, and never for long.

* NoAnswer               no HTTP answer came; the message is safe to show to the one who chose the address
  + BlockedAddress       the URL or its address is not one that may be reached; nothing was sent
  + Unreachable          no connection: name, network or certificate
  + Interrupted          the connection was cut, or what came back is not HTTP
  + DeadlinePassed       the total time ran out before the answer's status
* RefusedUrl             said by `check_url`, before anything is tried
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

#: The one part of the IPv6 space that is handed out to the public (IANA); all else is special or unused.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
#: What is not public within it. Tunnels (Teredo, 6to4) count: they carry an IPv4 address that nobody would check.
BLOCKED_IPV6 = tuple(map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: What is not public, or what Python's own list has held in some versions and not in others.
BLOCKED_IPV4 = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            # Azure's host, in public numbers: only a machine in that cloud reaches it, and it gives out secrets.
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

#: A name of labels, or what an IPv6 address is written with.
HOST = re.compile(r"(?=.{1,254}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f:.]+")
MAX_URL_LENGTH = 2000
CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 16_384
#: Threads for names. They are the client's own: a name server that hangs must not hold up anybody else's threads.
LOOKUP_THREADS = 8


class NoResponse(Exception): ...


class BlockedAddress(NoResponse): ...


class ConnectionFailed(NoResponse): ...


class ConnectionInterrupted(NoResponse): ...


class DeadlineExceeded(NoResponse): ...


class RejectedUrl(ValueError): ...


class _BlockedBySsrfGuard(OSError):
    """What the guard raises inside aiohttp, which passes on only `OSError` from there."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Where a client may go: public addresses, and some networks besides."""

    networks: tuple[Network, ...] = ()
    #: Empty: every port.
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def parse(cls, networks: Iterable[str], ports: Iterable[int]) -> "EgressPolicy":
        """Read networks as settings write them. Raises `ValueError` for one that is not a network."""
        return cls(tuple(ipaddress.ip_network(text) for text in networks), frozenset(ports))

    def allows_port(self, port: int) -> bool:
        return not self.ports or port in self.ports


@dataclass(frozen=True, slots=True)
class CappedResponse:
    """What came back. A body that was cut, or too slow, or too long, is as much of it as there is."""

    status: int
    headers: httpx.Headers
    #: The first bytes of the body, as they came over the wire.
    head: bytes


# What may be reached


def is_allowed(ip: str, networks: Sequence[Network] = ()) -> bool:
    """True for a public address, or one of the networks; False for anything else, text that is no address included."""
    try:
        address = _unmap_ipv4(ipaddress.ip_address(ip))
    except ValueError:
        return False
    # An address is in no network of the other version, so the two need not be told apart.
    return any(address in network for network in networks) or _is_public(address)


def _unmap_ipv4(address: Address) -> Address:
    """See an IPv4 address behind `::ffff:a.b.c.d`: the kernel connects to it."""
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 6:
        return address in PUBLIC_IPV6 and not any(address in network for network in BLOCKED_IPV6)
    return not any(address in network for network in BLOCKED_IPV4)


def check_url(url: str, egress: EgressPolicy) -> None:
    """Look at a URL before it is kept. What its name resolves to is checked at every connection, not here.

    Raises:
        RefusedUrl: it can never be reached; the message says why.
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
        raise RejectedUrl("The URL must not hold a user name or password.")
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    if not egress.allows_port(port):
        raise RejectedUrl(f"Port {port} is not allowed; use {' or '.join(map(str, sorted(egress.ports)))}.")


def _literal_address(host: str) -> str | None:
    """Return the address that a host spells out, in whatever spelling the C library reads (`127.1`, `0x7f000001`)."""
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
    """Return a client to keep for the life of the process. It follows nothing, keeps no cookie, reads no environment.

    Must be closed (`aclose`). `lookup` has the signature of `socket.getaddrinfo`.
    """
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(
        transport=_GuardedTransport(egress, lookup, verify),
        trust_env=False,
        follow_redirects=False,
        cookies=no_cookies,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        # The answer's head is kept to be read by people, and never unpacked.
        headers={"Accept": "*/*", "Accept-Encoding": "identity"},
    )


class _GuardedTransport(AiohttpTransport):
    """The aiohttp transport, over a connector that checks the very address it is about to connect to."""

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
            # Each exchange has its own connection: it is checked each time, and none fails on one that went stale.
            force_close=True,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    def _open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        # aiohttp connects the socket to this very address next, so no name is looked up in between.
        family, kind, protocol, _, address = info
        if not is_allowed(address[0], self._egress.networks) or not self._egress.allows_port(address[1]):
            raise _BlockedBySsrfGuard("The host's address is not public.")
        return socket.socket(family, kind, protocol)


class _GuardedResolver(AbstractResolver):
    """Looks names up, and refuses a whole answer for one bad address in it: a mixed answer is an attack."""

    def __init__(self, egress: EgressPolicy, lookup: Lookup) -> None:
        self._egress = egress
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(self._lookup, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        addresses = list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in found))
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "The name has no address.")
        if not all(is_allowed(address, self._egress.networks) for _, address in addresses):
            raise _BlockedBySsrfGuard("The host's name leads to an address that is not public.")
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
    """Post the body and return the answer's status and the head of its body.

    One deadline covers name, connection, headers and body. It ends the wait for a status with an error; once there
    is a status it ends the reading, for then the other side has said what it had to say.

    Raises:
        NoAnswer: see the tree above; no foreign error escapes.
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
    """Return what comes until the cap, the end, the cut or the deadline; then hang up."""
    head = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            try:
                # Raw, so that a small answer cannot unpack into a large one.
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
    """Translate what httpx, aiohttp or the system raised. The words never name an address that a lookup found."""
    # The transport wraps aiohttp's errors in httpx's, whose classes say less (a refused connection is a
    # "ConnectTimeout" there), so we look behind them.
    match error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return ConnectionFailed("The host's name could not be resolved.")
        case aiohttp.ClientConnectorCertificateError() | ssl.CertificateError():
            return ConnectionFailed("The host's TLS certificate is not valid for it.")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return ConnectionFailed("The TLS handshake failed.")
        case aiohttp.ClientConnectorError() as refused:
            return ConnectionFailed(
                f"Connecting failed: {os.strerror(refused.errno) if refused.errno else 'no reason given'}."
            )
        case aiohttp.ServerTimeoutError():
            return ConnectionFailed(f"No connection within {CONNECT_SECONDS:g} s.")
        case aiohttp.InvalidURL() | httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return BlockedAddress("The URL cannot be used.")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | ValueError():
            return ConnectionInterrupted("What came back is not valid HTTP.")
        case _:
            return ConnectionInterrupted("The connection was cut before an answer came.")

"""SSRF guard: which addresses are never reached, and the limits of one exchange."""

import asyncio
import ipaddress
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.ssrf_guard import (
    BlockedAddress,
    CappedResponse,
    ConnectionFailed,
    ConnectionInterrupted,
    DeadlineExceeded,
    EgressPolicy,
    Lookup,
    NoResponse,
    RejectedUrl,
    check_url,
    guarded_client,
    is_allowed,
    post_capped,
    to_no_response,
)
from tests.webhooks.receiver import answering, cut, dripping, flooding, raw, receiving

HOSTILE = [
    "0.0.0.0",  # noqa: S104 (an address to refuse, none to bind)
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "127.0.0.1",
    "127.8.9.10",
    "168.63.129.16",  # Azure's host
    "169.254.0.1",
    "169.254.169.254",  # AWS', Google's and Azure's metadata
    "169.254.170.2",  # AWS' container credentials
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # 127.0.0.1 in the form that was given up
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:7f00:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # AWS' metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "",
    "localhost",
    "127.1",
    "2130706433",
    "1.1.1.1 ",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "2606:4700::1111",
    "2a00:1450::8a",
    "::ffff:1.1.1.1",
]

LOOPBACK = EgressPolicy.parse(["127.0.0.1/32"], [])


def answers(*found: str) -> Lookup:
    """A name server that knows one name, and these addresses of it."""

    def lookup(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        versions = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in found]
        return [(version, socket.SOCK_STREAM, 6, "", (ip, port)) for version, ip in zip(versions, found, strict=True)]

    return lookup


async def post(
    url: str,
    *,
    egress: EgressPolicy = LOOPBACK,
    lookup: Lookup = socket.getaddrinfo,
    body: bytes = b"{}",
    total_seconds: float = 5,
    verify: ssl.SSLContext | bool = True,
) -> CappedResponse:
    async with guarded_client(egress, lookup=lookup, verify=verify) as client:
        return await post_capped(client, url, body=body, headers={"X-Test": "1"}, total_seconds=total_seconds)


# Which addresses


@pytest.mark.parametrize("ip", HOSTILE)
def test_a_hostile_address_is_not_allowed(ip: str) -> None:
    assert not is_allowed(ip)


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_is_allowed(ip: str) -> None:
    assert is_allowed(ip)


@pytest.mark.parametrize(
    ("network", "ip"),
    [("127.0.0.0/8", "127.0.0.1"), ("127.0.0.0/8", "::ffff:127.0.0.1"), ("fd00::/8", "fd00::7")],
)
def test_a_configured_network_is_allowed(network: str, ip: str) -> None:
    assert is_allowed(ip, [ipaddress.ip_network(network)])


def test_a_configured_network_allows_no_other_address() -> None:
    assert not is_allowed("10.0.0.1", [ipaddress.ip_network("127.0.0.0/8")])


# Which URLs


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("/hook", "must begin with"),
        ("https://", "no host"),
        ("https:///hook", "no host"),
        ("https://user:pass@example.com/", "user name or password"),
        ("https://user@example.com/", "user name or password"),
        ("https://example.com:8443/", "Port 8443 is not allowed; use 80 or 443"),
        ("https://exa mple.com/", "neither a name nor an address"),
        ("https://exa%6dple.com/", "neither a name nor an address"),
        ("https://[fe80::1%25eth0]/", "neither a name nor an address"),
        ("https://[example.com/", "neither a name nor an address"),
        ("https://" + "x" * 64 + ".com/", "neither a name nor an address"),
        ("https://example.com:port/", "not a URL"),
        ("https://example.com/\n", "not a URL"),
        ("https://example.com/" + "x" * 2000, "longer than 2000"),
        ("http://127.0.0.1/", "not a public address"),
        ("http://127.0.0.1./", "not a public address"),
        ("http://127.1/", "not a public address"),
        ("http://2130706433/", "not a public address"),
        ("http://0x7f.0.0.1/", "not a public address"),
        ("http://0177.0.0.1/", "not a URL"),
        ("http://[::1]/", "not a public address"),
        ("http://[::ffff:10.0.0.1]/", "not a public address"),
        ("http://169.254.169.254/latest/meta-data/", "not a public address"),
        ("http://localhost/", "not a public address"),
        ("http://app.localhost/", "not a public address"),
    ],
)
def test_an_unreachable_url_is_rejected_with_a_reason(url: str, why: str) -> None:
    with pytest.raises(RejectedUrl, match=why):
        check_url(url, EgressPolicy())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/wp-json/nightdesk/v1/webhook",
        "http://example.com/?rest_route=/nightdesk/v1/webhook",
        "https://bücher.example/hook",
        "https://example.com:443/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
    ],
)
def test_a_url_of_a_public_host_is_accepted(url: str) -> None:
    check_url(url, EgressPolicy())


def test_localhost_is_accepted_where_its_network_is_allowed() -> None:
    check_url("http://localhost:8080/hook", LOOPBACK)


# Which connections


async def test_the_response_of_an_allowed_host_is_returned() -> None:
    async with receiving() as receiver:
        receiver.script = [answering(201, "X-Seen: yes", body=b"thank you")]

        answer = await post(receiver.url, body=b'{"a": 1}')

    assert (answer.status, answer.headers["x-seen"], answer.head) == (201, "yes", b"thank you")
    assert receiver.received[0].line == "POST /hook HTTP/1.1"
    assert receiver.received[0].body == b'{"a": 1}'
    assert receiver.received[0].headers["x-test"] == "1"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f.1", "localhost"]
)
async def test_a_literal_address_is_checked_when_it_is_connected(host: str) -> None:
    async with receiving() as receiver:
        with pytest.raises(BlockedAddress):
            await post(f"http://{host}:{receiver.port}/", egress=EgressPolicy(ports=frozenset()))

    assert receiver.received == []


@pytest.mark.parametrize("found", [["10.0.0.7"], ["1.1.1.1", "10.0.0.7"], ["2606:4700::1111", "::1"], ["127.0.0.2"]])
async def test_a_name_with_one_blocked_address_is_blocked_completely(found: list[str]) -> None:
    with pytest.raises(BlockedAddress, match="not public") as caught:
        await post("http://hook.test/", lookup=answers(*found))

    assert not any(ip in str(caught.value) for ip in found)


async def test_dns_rebinding_between_check_and_connect_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The name server turns as soon as it was asked once; whoever looked a name up again would get 127.0.0.2.
    turns = iter([answers("127.0.0.1"), answers("127.0.0.2"), answers("127.0.0.2")])
    connected: list[str] = []
    connect = asyncio.get_running_loop().sock_connect

    async def watch(sock: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        await connect(sock, address)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", watch)
    async with receiving() as receiver:
        url = f"http://hook.test:{receiver.port}/"
        assert (await post(url, lookup=lambda *a, **k: next(turns)(*a, **k))).status == 200
        with pytest.raises(BlockedAddress):
            await post(url, lookup=lambda *a, **k: next(turns)(*a, **k))

    assert connected == ["127.0.0.1"]


async def test_the_connector_blocks_an_address_that_no_resolver_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unguarded(*_: Any, **__: Any) -> list[dict[str, Any]]:
        return [
            {"hostname": "hook.test", "host": "127.0.0.1", "port": 80, "family": socket.AF_INET, "proto": 0, "flags": 0}
        ]

    monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", unguarded)

    with pytest.raises(BlockedAddress, match="not public"):
        await post("http://hook.test/", egress=EgressPolicy())


async def test_a_port_that_is_not_allowed_is_not_connected() -> None:
    async with receiving() as receiver:
        with pytest.raises(BlockedAddress, match="Port"):
            await post(receiver.url, egress=EgressPolicy.parse(["127.0.0.0/8"], [80, 443]))

    assert receiver.received == []


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "unix:///run/docker.sock", "http+unix://x/", "hook", "http://u:p@127.0.0.1/", "http://[x"],
)
async def test_only_http_urls_are_requested(url: str) -> None:
    with pytest.raises(BlockedAddress):
        await post(url)


async def test_a_redirect_is_returned_and_not_followed() -> None:
    async with receiving() as receiver:
        receiver.script = [answering(307, f"Location: {receiver.url}")]

        answer = await post(receiver.url)

    assert (answer.status, len(receiver.received)) == (307, 1)


async def test_cookies_and_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver, guarded_client(LOOPBACK) as client:
        receiver.script = [answering(200, "Set-Cookie: a=b; Path=/")]

        for _ in range(2):
            await post_capped(client, receiver.url, body=b"", headers={}, total_seconds=5)

    assert len(receiver.received) == 2
    assert "cookie" not in receiver.received[1].headers


# What one exchange may cost


async def test_only_the_head_of_a_huge_body_is_read() -> None:
    written: list[int] = []
    async with receiving() as receiver:
        receiver.script = [flooding(131_072_000, written)]

        answer = await post(receiver.url)

    assert answer.status == 200
    assert answer.head == b"x" * 16_384
    assert written[0] < 16_000_000


async def test_the_head_is_cut_at_the_exact_byte() -> None:
    async with receiving() as receiver, guarded_client(LOOPBACK) as client:
        answer = await post_capped(client, receiver.url, body=b"", headers={}, total_seconds=5, max_body_bytes=5)

    assert answer.head == b"thank"


async def test_a_compressed_body_is_not_decompressed() -> None:
    packed = b"\x1f\x8b" + b"\0" * 100
    async with receiving() as receiver:
        receiver.script = [answering(200, "Content-Encoding: gzip", body=packed)]

        assert (await post(receiver.url)).head == packed

    assert receiver.received[0].headers["accept-encoding"] == "identity"


async def test_slow_response_headers_end_at_the_deadline() -> None:
    begun = time.monotonic()
    async with receiving() as receiver:
        receiver.otherwise = dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ")

        with pytest.raises(DeadlineExceeded, match=r"No response within 0\.3 s"):
            await post(receiver.url, total_seconds=0.3)

    assert time.monotonic() - begun < 2


async def test_a_slow_body_is_returned_as_far_as_it_came_before_the_deadline() -> None:
    begun = time.monotonic()
    async with receiving() as receiver:
        receiver.otherwise = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegin ")

        answer = await post(receiver.url, total_seconds=0.3)

    assert answer.status == 200
    assert answer.head.startswith(b"begin x")
    assert time.monotonic() - begun < 2


async def test_an_interrupted_body_is_returned_as_far_as_it_came() -> None:
    async with receiving() as receiver:
        receiver.script = [raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nbegin")]

        answer = await post(receiver.url)

    assert (answer.status, answer.head) == (503, b"begin")


async def test_the_deadline_covers_the_name_lookup() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(timeout=5)
        return []

    async with guarded_client(LOOPBACK, lookup=hang) as client:
        with pytest.raises(DeadlineExceeded):
            await post_capped(client, "http://hook.test/", body=b"", headers={}, total_seconds=0.2)
        release.set()


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_a_receiver_that_reads_no_body_ends_at_the_deadline() -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(DeadlineExceeded):
        await post(f"http://127.0.0.1:{port}/", body=b"x" * 30_000_000, total_seconds=0.3)
    done.set()
    server.close()


@pytest.mark.parametrize(
    ("behavior", "said"),
    [
        (cut, "closed before a response"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), "closed before a response|not valid HTTP"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not valid HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "not valid HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"), "not valid HTTP"),
    ],
)
async def test_an_invalid_response_is_reported(behavior: Any, said: str) -> None:
    async with receiving() as receiver:
        receiver.script = [behavior]

        with pytest.raises(ConnectionInterrupted, match=said):
            await post(receiver.url)


async def test_a_refused_connection_is_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        with pytest.raises(ConnectionFailed, match="refused"):
            await post(f"http://127.0.0.1:{unused.getsockname()[1]}/")


@pytest.mark.parametrize("trouble", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), None])
async def test_an_unresolvable_name_is_reported(trouble: Exception | None) -> None:
    def fail(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if trouble:
            raise trouble
        return []

    with pytest.raises(ConnectionFailed, match="could not be resolved"):
        await post("http://hook.test/", lookup=fail)


def test_every_foreign_error_is_translated() -> None:
    request = httpx.Request("POST", "http://hook.test/")
    kinds = [kind for kind in vars(httpx).values() if isinstance(kind, type) and issubclass(kind, httpx.TransportError)]

    found = [to_no_response(kind("…", request=request)) for kind in kinds]

    assert len(kinds) > 10
    assert all(isinstance(error, NoResponse) for error in found)


# TLS


async def test_the_certificate_is_verified_for_the_name_although_the_address_is_pinned(tmp_path: Path) -> None:
    server_side, client_side = tls_contexts(tmp_path, "hook.test")
    async with receiving(tls=server_side) as receiver:
        good = await post(f"https://hook.test:{receiver.port}/", lookup=answers("127.0.0.1"), verify=client_side)
        with pytest.raises(ConnectionFailed, match="certificate"):
            await post(f"https://other.test:{receiver.port}/", lookup=answers("127.0.0.1"), verify=client_side)
        with pytest.raises(ConnectionFailed, match="certificate"):
            await post(f"https://hook.test:{receiver.port}/", lookup=answers("127.0.0.1"))

    assert good.status == 200


async def test_a_host_without_tls_is_reported() -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    with pytest.raises(ConnectionFailed, match="TLS handshake failed"):
        await post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()


def tls_contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that shows a fresh certificate for `name`, and a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=3))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)
    return server_side, ssl.create_default_context(cafile=str(file))

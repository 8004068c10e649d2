"""A live HTTP request as it arrived, before authentication."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings

from core.ids import new_uuid, to_public
from tenants.access import client_address
from tenants.authentication import PresentedRequest

#: The scheme of the origin, by the scheme of the connection: a page's WebSocket has the origin of the page.
ORIGIN_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class LiveHttpRequest:
    """One HTTP request."""

    method: str
    path: str
    #: Path and query exactly as sent.
    target: str
    query: str
    #: By lower-case name; of several with one name, the last.
    headers: Mapping[str, str] = field(repr=False)
    #: The client's address, as reported by the trusted proxies.
    address: str
    #: The scheme and host that the client addressed.
    server_origin: str
    request_id: str
    #: By the clock of `time.perf_counter`.
    started_at: float
    body: bytes = field(default=b"", repr=False)

    @property
    def origin(self) -> str | None:
        """The origin of the page that sent it; None for servers, and for pages of this gateway itself."""
        origin = self.headers.get("origin")
        return None if origin == self.server_origin else origin

    def to_presented_request(self) -> PresentedRequest:
        """Return what authentication reads."""
        return PresentedRequest(self.method, self.target, self.headers, self.body)

    def query_parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        return next(iter(parse_qs(self.query, keep_blank_values=True).get(name, ())), None)


def request_from_scope(scope: Mapping[str, Any], started_at: float, body: bytes = b"") -> LiveHttpRequest:
    """Return the request that an ASGI scope describes."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query: bytes = scope.get("query_string", b"")
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    target = raw_path.split(b"?", 1)[0] + (b"?" + query if query else b"")
    peer = (scope.get("client") or ("",))[0]
    return LiveHttpRequest(
        method=scope.get("method", "GET"),
        path=scope["path"],
        target=target.decode("latin-1"),
        query=query.decode("latin-1"),
        headers=headers,
        address=client_address(peer, headers.get("x-forwarded-for", ""), settings.TRUSTED_PROXY_COUNT),
        server_origin=f"{ORIGIN_SCHEMES.get(scope.get('scheme', ''), 'http')}://{headers.get('host', '')}",
        request_id=to_public("req", new_uuid()),
        started_at=started_at,
        body=body,
    )

"""Authenticates WebSocket clients and authorizes each message separately: credentials expire and are revoked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from api.live.http_request import LiveHttpRequest
from api.live.websocket.messages import StartMessage
from core.ids import new_uuid, to_public
from live.admit import consume_nonce
from live.errors import ShuttingDown
from live.request import Caller
from live.runtime import LiveRuntime
from tenants import tickets
from tenants.access import TokenScope, check_network_and_origin, check_scope
from tenants.async_authentication import authenticate_async, authenticate_reader
from tenants.authentication import AuthMethod, BearerToken, Identity, find_credentials
from tenants.cached_lookups import with_cached_lookups
from tenants.errors import InsufficientScope, InvalidCredentials
from tenants.models import Site
from tenants.tickets import READ_SCOPES, ReadableKind

SIGNED_METHODS = (AuthMethod.SIGNED_REQUEST, AuthMethod.LEGACY_SIGNATURE)
#: One of these is enough to start a stream.
START_SCOPES = (TokenScope.STREAMS_WRITE, TokenScope.CHAT_WRITE)


@dataclass(frozen=True, slots=True)
class WebSocketCaller:
    """The client of one connection, authenticated when it opened."""

    #: The handshake, with the credential in its headers wherever it came from.
    http_request: LiveHttpRequest
    site: Site
    #: None for a ticket, which can start nothing.
    identity: Identity | None

    async def authorize_start(self, runtime: LiveRuntime) -> Caller:
        """Return the caller that may start a stream. Raises `ShuttingDown`, and what `_current_identity` raises."""
        if runtime.is_draining:
            raise ShuttingDown
        identity = await self._current_identity(runtime)
        if identity.scopes is not None and not identity.scopes.intersection(START_SCOPES):
            check_scope(identity, START_SCOPES[0])
        return Caller(identity, None)

    async def authorize_cancel(self, runtime: LiveRuntime, *, is_own: bool) -> Identity:
        """Return the identity that may cancel a stream. One that this connection started needs no further scope."""
        identity = await self._current_identity(runtime)
        if not is_own:
            check_scope(identity, TokenScope.STREAMS_WRITE)
        return identity

    async def authorize_read(self, runtime: LiveRuntime, what: ReadableKind, public_id: str) -> "WebSocketCaller":
        """Return the client that may read a stream or job, as of now. Raises `Unauthenticated` and `Forbidden`."""
        if self.identity is None:
            return await _caller_from_ticket(runtime, self.http_request, what, public_id)
        identity = await self._current_identity(runtime)
        check_scope(identity, READ_SCOPES[what])
        return replace(self, site=identity.site, identity=identity)

    def to_http_request(self, start: StartMessage) -> LiveHttpRequest:
        """Return a start message as the equivalent HTTP request."""
        headers = {"x-nightdesk-continue": "true"} if start.continue_ else {}
        if start.idempotency_key is not None:
            headers["idempotency-key"] = start.idempotency_key
        return replace(
            self.http_request,
            method="POST",
            path="/v1/streams",
            headers=headers,
            request_id=to_public("req", new_uuid()),
            body=bytes(start.body),
        )

    async def _current_identity(self, runtime: LiveRuntime) -> Identity:
        """Return the identity, if its credential is still valid. Raises `Unauthenticated` and `Forbidden`."""
        if self.identity is None:
            raise InsufficientScope("A ticket only authorizes reading its stream or job.")
        identity = self.identity
        if identity.auth_method in SIGNED_METHODS:
            # The signature expires within minutes; what counts is whether its secret is still active.
            await _check_credential_active(runtime, identity)
        else:
            identity = (await authenticate_async(self.http_request.to_presented_request(), runtime.threads)).identity
        check_network_and_origin(identity, self.http_request.address, self.http_request.origin)
        return identity


async def authenticate_websocket(
    runtime: LiveRuntime, http_request: LiveHttpRequest, credential: Mapping[str, str]
) -> WebSocketCaller:
    """Return the authenticated client, by the handshake's headers or by a credential that came otherwise.

    Raises `Unauthenticated` and `Forbidden`.
    """
    http_request = replace(http_request, headers={**http_request.headers, **credential})
    credentials = find_credentials(http_request.headers)
    if isinstance(credentials, BearerToken) and tickets.is_ticket(credentials.text):
        ticket = tickets.verify(credentials.text)
        return await _caller_from_ticket(runtime, http_request, ticket.kind, ticket.public_id)
    authenticated = await authenticate_async(http_request.to_presented_request(), runtime.threads)
    check_network_and_origin(authenticated.identity, http_request.address, http_request.origin)
    await consume_nonce(runtime, Caller(authenticated.identity, authenticated.nonce))
    return WebSocketCaller(http_request, authenticated.identity.site, authenticated.identity)


async def _caller_from_ticket(
    runtime: LiveRuntime, http_request: LiveHttpRequest, what: ReadableKind, public_id: str
) -> WebSocketCaller:
    authorized = await authenticate_reader(
        http_request.to_presented_request(), what, public_id, origin=http_request.origin, threads=runtime.threads
    )
    return WebSocketCaller(http_request, authorized.site, None)


async def _check_credential_active(runtime: LiveRuntime, identity: Identity) -> None:
    site = await with_cached_lookups(
        lambda lookups: lookups.site_for_credential(identity.credential_id), runtime.threads
    )
    if site is None or site.public_id != identity.site.public_id:
        raise InvalidCredentials

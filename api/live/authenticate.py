"""Authenticates live requests, and authorizes their network, origin and scope: the checks that need no body."""

from api.live.respond import ResponseContext
from live.admit import consume_nonce
from live.errors import ShuttingDown
from live.request import Caller
from live.runtime import LiveRuntime, live_runtime
from streams.entries import StreamInfo
from streams.errors import StreamUnknown
from tenants.access import TokenScope, check_network_and_origin, check_scope, echoed_origin
from tenants.async_authentication import AuthorizedReader, authenticate_async, authenticate_reader
from tenants.authentication import Identity
from tenants.tickets import ReadableKind


async def authenticate(context: ResponseContext, scope: TokenScope | None) -> tuple[LiveRuntime, Caller]:
    """Return the runtime and the authenticated caller, which has the scope. None: any credential will do.

    Raises:
        ShuttingDown: this process admits no more requests.
        Unauthenticated: the credentials are missing or not valid.
        Forbidden: the address, the origin or the scope is not allowed.
    """
    runtime, http_request = await live_runtime(), context.http_request
    if runtime.is_draining:
        raise ShuttingDown
    authenticated = await authenticate_async(http_request.to_presented_request(), runtime.threads)
    context.origin = echoed_origin(
        http_request.headers.get("origin"), authenticated.identity.site, authenticated.identity.origin
    )
    check_network_and_origin(authenticated.identity, http_request.address, http_request.origin)
    if scope is not None:
        check_scope(authenticated.identity, scope)
    return runtime, Caller(authenticated.identity, authenticated.nonce)


async def authenticate_event_reader(
    context: ResponseContext, runtime: LiveRuntime, kind: ReadableKind, public_id: str
) -> AuthorizedReader:
    """Return who reads the events of a stream or job: the holder of its ticket, or its site. Consumes the nonce.

    Raises:
        Unauthenticated: the credentials are missing, not valid, or were used before.
        Forbidden: the address, the origin or the scope is not allowed.
    """
    http_request = context.http_request
    authorized = await authenticate_reader(
        http_request.to_presented_request(), kind, public_id, origin=http_request.origin, threads=runtime.threads
    )
    context.origin = echoed_origin(http_request.headers.get("origin"), authorized.site, authorized.origin)
    if authorized.authenticated is not None:
        identity = authorized.authenticated.identity
        check_network_and_origin(identity, http_request.address, http_request.origin)
        await consume_nonce(runtime, Caller(identity, authorized.authenticated.nonce))
    return authorized


def check_stream_access(info: StreamInfo, identity: Identity | None) -> None:
    """Authorize reading and canceling a stream. A narrow token may only do so with its own streams and its user's.

    Raises:
        StreamUnknown: the token must not learn that the stream exists.
    """
    if identity is None or identity.token_id is None or identity.token_id == info.token:
        return
    if identity.user is None or identity.user != info.user:
        raise StreamUnknown(f"There is no stream {info.id}.")

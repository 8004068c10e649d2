"""Who asks live, from where, and for what: every check that needs no body."""

from api.live.respond import ResponseContext
from live.errors import ShuttingDown
from live.request import Caller
from live.runtime import LiveRuntime, live_runtime
from streams.entries import StreamInfo
from streams.errors import StreamUnknown
from tenants.access import TokenScope, check_network_and_origin, check_scope
from tenants.async_authentication import authenticate_async
from tenants.authentication import Identity
from tenants.origins import allowed_origin


async def authenticate(context: ResponseContext, scope: TokenScope | None) -> tuple[LiveRuntime, Caller]:
    """Return the desk and who asks, once it is clear that they may from here, and for this.

    Raises:
        Draining: this process is about to stop.
        Unauthenticated: nobody is proven.
        Forbidden: the address, the origin or the scope is not allowed.
    """
    runtime, http_request = await live_runtime(), context.http_request
    if runtime.is_draining:
        raise ShuttingDown
    authenticated = await authenticate_async(http_request.to_presented_request(), runtime.threads)
    context.origin = allowed_origin(
        http_request.headers.get("origin"), authenticated.identity.site, authenticated.identity.origin
    )
    check_network_and_origin(authenticated.identity, http_request.address, http_request.origin)
    if scope is not None:
        check_scope(authenticated.identity, scope)
    return runtime, Caller(authenticated.identity, authenticated.nonce)


def check_stream_access(about: StreamInfo, identity: Identity | None) -> None:
    """Let a narrow token read and cancel what was begun with it, or for its user, and no other stream of its site.

    Raises:
        StreamUnknown: for the token there is none of that id.
    """
    if identity is None or identity.token_id is None or identity.token_id == about.token:
        return
    if identity.user is None or identity.user != about.user:
        raise StreamUnknown(f"There is no stream {about.id}.")

"""A live request in neutral form: the same whether it came over HTTP or a WebSocket, and in which wire format."""

from dataclasses import dataclass, field

from providers.types import InferenceRequest
from tenants.authentication import Identity


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. Its nonce is consumed by the admission, or by `live.admit.consume_nonce`."""

    identity: Identity
    nonce: bytes | None

    @property
    def site(self) -> str:
        """The site's public id."""
        return self.identity.site.public_id


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What a caller requests, and how it wants the answer."""

    request_id: str
    caller: Caller
    request: InferenceRequest
    #: The name of the caller's wire format. Stored with the stream; it means nothing in this room.
    wire_format: str
    #: SHA-256 of what makes two requests the same: the address, the wire format and the body.
    body_hash: bytes = field(repr=False)
    #: As sent; `live.admit` validates it.
    idempotency_key: str | None = None
    #: The provider that the caller insists on.
    provider: str | None = None
    #: The answer is streamed.
    streams: bool = False
    #: If the stream is cut, another provider may continue it.
    allows_continuation: bool = False
    #: The caller does not object to a cached answer, and its answer may be cached.
    allows_cache: bool = True

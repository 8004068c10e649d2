"""What admission takes and returns: a request, its outcome, its lease and its settlement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import Struct

from tenants.rate_limiting.windows import RemainingQuota, SlidingWindow

#: Whether the idempotency key is kept: a failed request drops it, so that the caller may retry with the same key.
IdempotencyKeyAction: TypeAlias = Literal["keep", "drop"]


class AdmissionRequest(Struct, frozen=True):
    """A request to be admitted."""

    site: str
    request_id: str
    #: An estimate of the tokens that it will use, reserved until `settle` states what it used.
    tokens: int
    windows: tuple[SlidingWindow, ...]
    #: How many requests the site may have running; None: no limit.
    concurrency: int | None
    #: Its slot and reservation are freed after this time, unless the lease is renewed.
    lease_seconds: int
    nonce: bytes | None
    idempotency_key: str | None
    #: SHA-256: 32 bytes.
    body_hash: bytes
    #: The stream that a second request with the same idempotency key is attached to.
    stream_id: str
    cache_key: bytes | None
    process: str
    #: A usage record as JSON, kept with the open calls of the process until `settle`.
    open_usage_record: bytes | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request may run; it is counted in every window."""

    quotas: tuple[RemainingQuota, ...]
    #: The moment of admission by Redis's clock: `settle` finds the reservation by it.
    admitted_at_us: int


@dataclass(frozen=True, slots=True)
class OverRateLimit:
    """A window is full."""

    #: The window that has room last. One that the request can never fit into comes before all others.
    window: SlidingWindow
    #: When the request would fit, if nothing else is admitted; the length of the window if it never fits.
    retry_after_seconds: float
    quotas: tuple[RemainingQuota, ...]
    #: How many units of the window the request needs.
    needed: int

    @property
    def never_fits(self) -> bool:
        """Waiting does not help: the request needs more than the whole limit."""
        return self.needed > self.window.limit


@dataclass(frozen=True, slots=True)
class OverConcurrencyLimit:
    limit: int


@dataclass(frozen=True, slots=True)
class NonceAlreadyUsed:
    """A request with this nonce was admitted before."""


@dataclass(frozen=True, slots=True)
class IdempotencyKeyReused:
    """The idempotency key belongs to a request with another body."""


@dataclass(frozen=True, slots=True)
class AttachToStream:
    """The request was sent before: its stream is running, or is replayed."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The response is cached."""

    body: bytes


AdmissionOutcome: TypeAlias = (
    Admitted
    | OverRateLimit
    | OverConcurrencyLimit
    | NonceAlreadyUsed
    | IdempotencyKeyReused
    | AttachToStream
    | CacheHit
)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A response to cache."""

    key: bytes
    body: bytes
    ttl_seconds: int


class Settlement(Struct, frozen=True):
    """The outcome of an admitted request: what it used, and what to release and store."""

    site: str
    request_id: str
    windows: tuple[SlidingWindow, ...]
    #: As in `Admitted`. 0: the request was not admitted, so nothing is released. Below 0: the moment is unknown, and
    #: this is its lease.
    admitted_at_us: int
    reserved_tokens: int
    used_tokens: int
    #: Usage records as JSON, appended to the list that metering drains.
    usage_records: Sequence[bytes]
    idempotency_key: str | None
    body_hash: bytes
    stream_id: str
    idempotency_key_action: IdempotencyKeyAction
    cache: tuple[CacheEntry, ...]
    process: str


@dataclass(frozen=True, slots=True)
class RequestLease:
    """What a running request holds and has to renew."""

    site: str
    request_id: str
    idempotency_key: str | None
    stream_id: str


def to_settlement(
    request: AdmissionRequest,
    admitted: Admitted | None,
    *,
    used_tokens: int,
    usage_records: Sequence[bytes] = (),
    idempotency_key_action: IdempotencyKeyAction = "keep",
    cache: tuple[CacheEntry, ...] = (),
) -> Settlement:
    """Return the settlement of a request. `admitted` is None if Redis was unavailable then: nothing is released."""
    return Settlement(
        site=request.site,
        request_id=request.request_id,
        windows=request.windows,
        admitted_at_us=admitted.admitted_at_us if admitted else 0,
        reserved_tokens=request.tokens,
        used_tokens=used_tokens,
        usage_records=usage_records,
        idempotency_key=request.idempotency_key,
        body_hash=request.body_hash,
        stream_id=request.stream_id,
        idempotency_key_action=idempotency_key_action,
        cache=cache,
        process=request.process,
    )


def to_lease(request: AdmissionRequest) -> RequestLease:
    return RequestLease(request.site, request.request_id, request.idempotency_key, request.stream_id)

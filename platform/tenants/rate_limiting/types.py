"""What is asked of the admission, what it answers, and what is said at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import Struct

from tenants.rate_limiting.windows import RemainingQuota, SlidingWindow


class AdmissionRequest(Struct, frozen=True):
    """A request that would begin now."""

    site: str
    request_id: str
    #: An estimate of what it may use, reserved until `settle` says what it did.
    tokens: int
    windows: tuple[SlidingWindow, ...]
    #: How many of the site may run at once; None: any number.
    concurrency: int | None
    #: What it holds frees itself after this time, unless it is renewed.
    lease_seconds: int
    nonce: bytes | None
    idempotency_key: str | None
    #: SHA-256: of 32 bytes.
    body_hash: bytes
    #: What a second request with the same idempotency key is attached to.
    stream_id: str
    cache_key: bytes | None
    process: str
    #: A usage row as JSON, kept in `nd:open:<process>` until `settle`.
    open_usage_record: bytes | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may begin; everything is counted."""

    quotas: tuple[RemainingQuota, ...]
    #: By Redis's clock, in microseconds; `settle` finds by it what was reserved. 0: nothing was.
    at: int


@dataclass(frozen=True, slots=True)
class OverRateLimit:
    """A window is full."""

    #: The one that has no room for the longest, and before all others one whose whole limit is too small.
    window: SlidingWindow
    #: When the request would fit, if nobody else asks; for one that never fits, how long the window is.
    retry_after_seconds: float
    quotas: tuple[RemainingQuota, ...]
    #: What the request needs of the window.
    needs: int

    @property
    def never_fits(self) -> bool:
        """Waiting does not help: it needs more than the whole limit."""
        return self.needs > self.window.limit


@dataclass(frozen=True, slots=True)
class OverConcurrencyLimit:
    limit: int


@dataclass(frozen=True, slots=True)
class NonceAlreadyUsed:
    """The signed request was let in before."""


@dataclass(frozen=True, slots=True)
class IdempotencyKeyReused:
    """The idempotency key stands for another body."""


@dataclass(frozen=True, slots=True)
class AttachToStream:
    """The same was asked before: its stream runs, or is replayed."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The answer is known."""

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
    """An answer to keep."""

    key: bytes
    body: bytes
    ttl_seconds: int


class Settlement(Struct, frozen=True):
    """How an admitted request ended."""

    site: str
    request_id: str
    windows: tuple[SlidingWindow, ...]
    #: `Admitted.at`, and the tokens that were reserved then. Below 0: nobody was told, but this is its lease.
    at: int
    reserved_tokens: int
    used_tokens: int
    #: Usage rows as JSON. They go to `nd:usage`.
    usage_rows: Sequence[bytes]
    idempotency_key: str | None
    body_hash: bytes
    stream_id: str
    #: What becomes of the idempotency key; a failed request drops it, so that it may be tried again.
    outcome: Literal["keep", "drop"]
    cache: tuple[CacheEntry, ...]
    process: str


@dataclass(frozen=True, slots=True)
class RequestLease:
    """What a running request holds."""

    site: str
    request_id: str
    idempotency_key: str | None
    stream_id: str


def to_settlement(
    ask: AdmissionRequest,
    admitted: Admitted | None,
    *,
    used_tokens: int,
    usage_rows: Sequence[bytes] = (),
    outcome: Literal["keep", "drop"] = "keep",
    cache: tuple[CacheEntry, ...] = (),
) -> Settlement:
    """Return how an ask ended. Without an admission, for Redis was away, nothing is given back."""
    return Settlement(
        site=ask.site,
        request_id=ask.request_id,
        windows=ask.windows,
        at=admitted.at if admitted else 0,
        reserved_tokens=ask.tokens,
        used_tokens=used_tokens,
        usage_rows=usage_rows,
        idempotency_key=ask.idempotency_key,
        body_hash=ask.body_hash,
        stream_id=ask.stream_id,
        outcome=outcome,
        cache=cache,
        process=ask.process,
    )


def to_lease(ask: AdmissionRequest) -> RequestLease:
    return RequestLease(ask.site, ask.request_id, ask.idempotency_key, ask.stream_id)

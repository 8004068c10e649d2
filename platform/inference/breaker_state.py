"""State of one circuit breaker: what a call's result means for it, and what callers get while it is open. Pure."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from inference.routing import ProviderSpec, Target
from providers.errors import (
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    RequestRejected,
)

#: A longer `Retry-After` is cut to this, so that no provider disables itself for days.
MAX_RETRY_AFTER_COOLDOWN_SECONDS = 3600.0


class BreakerVerdict(StrEnum):
    """What the result of a call means for the breaker of its key."""

    #: The provider answered, even if it rejected the request.
    SUCCESS = "success"
    #: Counts towards the failure threshold.
    FAILURE = "failure"
    #: Opens the breaker immediately.
    TRIP = "trip"
    #: The request was not sent, so the result says nothing about the provider.
    IGNORE = "ignore"


def classify_result(error: ProviderError | None) -> BreakerVerdict:
    """Classify a call's error; None is an answer (docs/reference/wire-formats.md, 18)."""
    match error:
        case None:
            return BreakerVerdict.SUCCESS
        case ProviderKeyRejected():
            return BreakerVerdict.TRIP
        case ProviderRateLimited(retry_after_seconds=seconds) if seconds is not None:
            return BreakerVerdict.TRIP
        case RequestRejected(status=status):
            return BreakerVerdict.IGNORE if status is None else BreakerVerdict.SUCCESS
        case _:
            return BreakerVerdict.FAILURE


class BreakerState(StrEnum):
    """The state of a breaker that has an entry. A key without failures has none, and is closed."""

    #: Some calls failed; all are allowed.
    CLOSED = "closed"
    #: No call is allowed.
    OPEN = "open"
    #: The cooldown has passed: one probe call at a time is allowed.
    HALF_OPEN = "half_open"


class BreakerEntry(Struct):
    """What Redis stores about a failing key (`circuit_breaker.lua`). Times are in ms of its clock; 0 is never."""

    provider: str = ""
    #: The provider's model; empty if the breaker covers the whole key.
    model: str = ""
    kind: str = ""
    code: str = ""
    #: Failures and successes by second, within the window.
    counts: dict[str, tuple[int, int]] = {}
    opened_at: int = 0
    cooldown_until: int = 0
    #: How often it opened in a row: each time doubles the cooldown.
    trips: int = 0
    #: The process whose probe call is under way, and until when its lease holds.
    prober: str = ""
    probe_until: int = 0
    probe_lease_ms: int = 0


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker as operators see it, at one moment."""

    id: str
    provider: str
    #: The provider's model; empty if the breaker covers the whole key.
    model: str
    state: BreakerState
    #: Our word for the error that opened it (`providers.errors`), and the provider's.
    kind: str
    code: str
    failures: int
    successes: int
    opened_at: datetime | None
    #: The rest of the cooldown.
    cooldown_seconds: float
    #: A probe call is under way.
    is_probed: bool


decode_entry = msgspec.json.Decoder(BreakerEntry).decode


def prune_counts(entry: BreakerEntry, start_ms: float) -> BreakerEntry:
    """Drop the counts of seconds before `start_ms`."""
    recent = {second: counts for second, counts in entry.counts.items() if int(second) * 1000 >= start_ms}
    return msgspec.structs.replace(entry, counts=recent)


def to_status(id_: str, entry: BreakerEntry, now_ms: float) -> BreakerStatus:
    cooldown_ms = max(entry.cooldown_until - now_ms, 0)
    without_cooldown = BreakerState.HALF_OPEN if entry.opened_at else BreakerState.CLOSED
    return BreakerStatus(
        id=id_,
        provider=entry.provider,
        model=entry.model,
        state=BreakerState.OPEN if cooldown_ms else without_cooldown,
        kind=entry.kind,
        code=entry.code,
        failures=sum(failures for failures, _ in entry.counts.values()),
        successes=sum(successes for _, successes in entry.counts.values()),
        opened_at=datetime.fromtimestamp(entry.opened_at / 1000, UTC) if entry.opened_at else None,
        cooldown_seconds=cooldown_ms / 1000,
        is_probed=bool(entry.prober) and entry.probe_until > now_ms,
    )


def to_statuses(entries: Mapping[str, BreakerEntry], now_ms: float) -> list[BreakerStatus]:
    """Return them ordered by id."""
    return [to_status(id_, entry, now_ms) for id_, entry in sorted(entries.items())]


def breaker_ids(target: Target) -> tuple[str, str]:
    """Return the breaker ids of a target's key and of its model under that key.

    Rate limits are per model; every other failure concerns the whole key.
    """
    key = key_id(target.provider)
    return key, f"{key}:{target.upstream_model}"


def breaker_id_for(target: Target, error: ProviderError) -> str:
    """Return the id of the breaker that an error counts against."""
    key, model = breaker_ids(target)
    return model if isinstance(error, ProviderRateLimited) else key


@functools.lru_cache(maxsize=1000)
def key_id(spec: ProviderSpec) -> str:
    """Return the breaker id of a provider's key."""
    # A new key or address starts with a closed breaker. A digest, because ids are logged and shown in the admin.
    secret = f"{spec.base_url}\0{spec.api_key}".encode()
    return f"{spec.name}:{hashlib.sha256(secret).hexdigest()[:12]}"


def to_refusal(status: BreakerStatus) -> ProviderError:
    """Return the error for a call that the breaker does not allow: the one that the call would most likely get."""
    seconds = max(math.ceil(status.cooldown_seconds), 1)
    # Without the remaining seconds: a job keeps the message, and `Retry-After` has them.
    message = f"The circuit breaker of provider {status.provider} is open after errors ({status.kind})."
    if status.kind == ProviderKeyRejected.kind:
        return ProviderKeyRejected(message, code=status.code or None)
    if status.kind == ProviderRateLimited.kind:
        return ProviderRateLimited(message, code=status.code or None, retry_after_seconds=seconds)
    return ProviderOverloaded(message, code=status.code or None, retry_after_seconds=seconds)

"""How a provider's key is: what a call says of it, and what others are told while it is left alone. Pure."""

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

#: A provider that asks to be left alone for longer is tried all the same.
MAX_RETRY_AFTER_SECONDS = 3600.0


class BreakerVerdict(StrEnum):
    """What the end of a call says of the key that it was made with."""

    #: It answers, be it that the request is wrong.
    SUCCESS = "success"
    #: It is in trouble, if others say so too.
    FAILURE = "failure"
    #: It is of no use for now.
    TRIP = "trip"
    #: Nothing: we have not even asked.
    IGNORE = "ignore"


def classify_result(error: ProviderError | None) -> BreakerVerdict:
    """Say what a call's error says of its key; None is an answer (wire formats, 18)."""
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
    """A breaker's state. Keys that are well have none."""

    #: Some calls failed; all are let through.
    CLOSED = "closed"
    #: No call is let through.
    OPEN = "open"
    #: It has rested: one call at a time is let through, to see.
    HALF_OPEN = "half_open"


class BreakerEntry(Struct):
    """What Redis stores about a failing key (`circuit_breaker.lua`). Times are in ms of its clock; 0 is never."""

    provider: str = ""
    #: The provider's model; empty where all of the key's are meant.
    model: str = ""
    kind: str = ""
    code: str = ""
    #: Failures and answers by second, within the window.
    counts: dict[str, tuple[int, int]] = {}
    opened_at: int = 0
    rests_until: int = 0
    times: int = 0
    prober: str = ""
    probe_until: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A key in trouble, for people to look at."""

    id: str
    provider: str
    #: The provider's model; empty where all of the key's are meant.
    model: str
    state: BreakerState
    #: Our word for the error that it was noted for (`providers.errors`), and the provider's.
    kind: str
    code: str
    failures: int
    answers: int
    opened_at: datetime | None
    #: How long it is left alone from now.
    cooldown_seconds: float
    #: One call is under way, to see.
    is_probed: bool


decode_entry = msgspec.json.Decoder(BreakerEntry).decode


def prune_counts(entry: BreakerEntry, moment_ms: float) -> BreakerEntry:
    """Leave out of an entry's counts what is older."""
    kept = {second: each for second, each in entry.counts.items() if int(second) * 1000 >= moment_ms}
    return msgspec.structs.replace(entry, counts=kept)


def to_status(id_: str, entry: BreakerEntry, now_ms: float) -> BreakerStatus:
    cooldown_ms = max(entry.rests_until - now_ms, 0)
    closed = BreakerState.HALF_OPEN if entry.opened_at else BreakerState.CLOSED
    return BreakerStatus(
        id=id_,
        provider=entry.provider,
        model=entry.model,
        state=BreakerState.OPEN if cooldown_ms else closed,
        kind=entry.kind,
        code=entry.code,
        failures=sum(failures for failures, _ in entry.counts.values()),
        answers=sum(answers for _, answers in entry.counts.values()),
        opened_at=datetime.fromtimestamp(entry.opened_at / 1000, UTC) if entry.opened_at else None,
        cooldown_seconds=cooldown_ms / 1000,
        is_probed=bool(entry.prober) and entry.probe_until > now_ms,
    )


def to_statuses(entries: Mapping[str, BreakerEntry], now_ms: float) -> list[BreakerStatus]:
    """Return them in order of their names."""
    return [to_status(id_, entry, now_ms) for id_, entry in sorted(entries.items())]


def breaker_ids(target: Target) -> tuple[str, str]:
    """Name a target's key, and its model under that key: rates are limited by model, all other trouble is the key's."""
    key = key_id(target.provider)
    return key, f"{key}:{target.upstream_model}"


def breaker_id_for(target: Target, error: ProviderError) -> str:
    """Name what an error is about."""
    key, model = breaker_ids(target)
    return model if isinstance(error, ProviderRateLimited) else key


@functools.lru_cache(maxsize=1000)
def key_id(spec: ProviderSpec) -> str:
    """Name a provider's key."""
    # Another key, or another address, is another matter; a digest, for names are seen by many.
    secret = f"{spec.base_url}\0{spec.api_key}".encode()
    return f"{spec.name}:{hashlib.sha256(secret).hexdigest()[:12]}"


def to_refusal(status: BreakerStatus) -> ProviderError:
    """Return what a caller is told who may not ask: the error that asking would most likely be."""
    seconds = max(math.ceil(status.cooldown_seconds), 1)
    message = (
        f"Provider {status.provider} is temporarily disabled for another {seconds} s after errors ({status.kind})."
    )
    if status.kind == ProviderKeyRejected.kind:
        return ProviderKeyRejected(message, code=status.code or None)
    if status.kind == ProviderRateLimited.kind:
        return ProviderRateLimited(message, code=status.code or None, retry_after_seconds=seconds)
    return ProviderOverloaded(message, code=status.code or None, retry_after_seconds=seconds)

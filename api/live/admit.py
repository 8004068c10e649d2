"""From a proven request to one that may begin: what is wanted, who could serve it, and whether there is room."""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass, replace

import msgspec
import structlog
from django.conf import settings

from api.errors import ConcurrencyLimitExceeded, RateLimiterUnavailable, RateLimitExceeded
from api.live.authenticate import Caller, consume_nonce
from api.live.http_request import LiveHttpRequest
from api.live.runtime import LiveRuntime
from api.live.wire_formats import ParsedRequest
from core import clock, metrics
from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import heartbeat_key
from inference import cache
from inference.calls import CallOpened
from inference.permit import Permitted, permit
from inference.routing import Target, get_routing_async, order_targets, with_key
from inference.usage_records import UsageAttribution, to_open_usage_record
from jobs.errors import IdempotencyConflict
from metering.buffer import encode_usage_record
from providers.invalid_request import InvalidRequest
from providers.types import ChatRequest, Usage
from streams.entries import StreamRecord, new_stream_id, stream_age_seconds
from streams.errors import StreamUnknown
from streams.reader import POLL_SECONDS, find_record
from tenants.errors import ReplayedRequest
from tenants.models import LimitKind
from tenants.rate_limiting.admission import admit, release_idempotency_key
from tenants.rate_limiting.rules import SiteLimits, get_limits_async
from tenants.rate_limiting.types import (
    AdmissionOutcome,
    AdmissionRequest,
    Admitted,
    AttachToStream,
    CacheHit,
    IdempotencyKeyReused,
    NonceAlreadyUsed,
    OverRateLimit,
)
from tenants.rate_limiting.types import OverConcurrencyLimit as Full
from tenants.rate_limiting.windows import RemainingQuota

log = structlog.get_logger(__name__)

IDEMPOTENCY_KEY_PATTERN = re.compile(r"[\x20-\x7e]{1,255}")
#: A stream that another process is about to begin is waited for so long.
STREAM_START_TIMEOUT_SECONDS = 5.0
#: Reserved for an answer whose length nobody bounded.
DEFAULT_OUTPUT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that was let in."""

    caller: Caller
    parsed: ParsedRequest
    #: In the order in which they will be asked.
    targets: tuple[Target, ...]
    attribution: UsageAttribution
    admission: AdmissionRequest
    #: None: it was let in uncounted, for Redis is away.
    reservation: Admitted | None
    input_tokens: int
    #: Vectors of it may be kept, and given again.
    may_cache: bool = False

    @property
    def quotas(self) -> tuple[RemainingQuota, ...]:
        return self.reservation.quotas if self.reservation else ()


async def admit_request(
    runtime: LiveRuntime,
    caller: Caller,
    http_request: LiveHttpRequest,
    parsed: ParsedRequest,
    *,
    stream_id: str | None = None,
) -> AdmittedRequest | AttachToStream | CacheHit:
    """Let the request in, or find its answer: attached to a stream that runs or ran, or kept.

    Raises:
        InvalidRequest, RequestTooLong: the body asks for what cannot be.
        ModelNotAllowed, UnknownModel, NoProvider: nobody serves the model, or not to this caller.
        LimitReached: there is no room now.
        IdempotencyConflict: the key stands for another body.
        Replayed: the signed request was let in before.
        NoFastMemory: Redis is away, and LIVE_FAIL_MODE is `closed`.
    """
    site, routing = caller.identity.site, await get_routing_async(runtime.threads)
    permitted = permit(parsed.request, site, caller.identity.grant, routing, provider=parsed.provider)
    parsed = replace(parsed, request=permitted.request)
    targets = _in_order(runtime, parsed.request.model, permitted.targets)
    allowed = await get_limits_async(site.id, runtime.threads)
    attribution = UsageAttribution(site.id, parsed.request.model, http_request.request_id)
    ask = _admission_request(
        runtime, caller, http_request, parsed, targets, attribution, allowed, permitted, stream_id or new_stream_id()
    )
    outcome: AdmissionOutcome | None
    try:
        outcome = await _admit_replacing_lost_stream(runtime, caller, ask)
    except RedisUnavailable as error:
        await _admit_without_redis(runtime, caller, error)
        outcome = None
    match outcome:
        case Admitted() | None:
            return AdmittedRequest(
                caller, parsed, targets, attribution, ask, outcome, permitted.input_tokens, may_cache(http_request)
            )
        case AttachToStream() | CacheHit():
            return outcome
        case OverRateLimit():
            raise _rate_limit_error(outcome)
        case Full(limit):
            metrics.rate_limited.labels("concurrency").inc()
            raise ConcurrencyLimitExceeded(f"{limit} requests of this site are running, its concurrency limit.", 1.0)
        case NonceAlreadyUsed():
            raise ReplayedRequest
        case IdempotencyKeyReused():
            raise IdempotencyConflict


async def _admit_replacing_lost_stream(runtime: LiveRuntime, caller: Caller, ask: AdmissionRequest) -> AdmissionOutcome:
    outcome = await admit(runtime.server, ask)
    if isinstance(outcome, AttachToStream) and await _is_stream_lost(runtime, caller, outcome.stream_id):
        # What was answered then cannot be read any more, so it is asked anew. The nonce was used up just now.
        await release_idempotency_key(runtime.server, ask, outcome)
        return await admit(runtime.server, msgspec.structs.replace(ask, nonce=None))
    return outcome


async def _is_stream_lost(runtime: LiveRuntime, caller: Caller, stream_id: str) -> bool:
    """Say whether a stream's log has ended its time, or its process died before its end."""
    try:
        record = await _wait_for_record(runtime, caller, stream_id)
    except StreamUnknown:
        return True
    if record.end is not None or record.process == runtime.heartbeat.id:
        return False
    with translate_redis_errors():
        return not await runtime.server.exists(heartbeat_key(record.process))


async def _wait_for_record(runtime: LiveRuntime, caller: Caller, stream_id: str) -> StreamRecord:
    """Return a stream's record. One that another process is about to begin is not there yet. Raises `StreamUnknown`."""
    begun_at = time.monotonic()
    while True:
        try:
            return await find_record(runtime.process_streams, stream_id, site=caller.site)
        except StreamUnknown:
            # By the clock of the other machine, too, or by what has passed here: they may differ.
            if max(stream_age_seconds(stream_id), time.monotonic() - begun_at) > STREAM_START_TIMEOUT_SECONDS:
                raise
        await asyncio.sleep(POLL_SECONDS)


def idempotency_key(http_request: LiveHttpRequest, parsed: ParsedRequest) -> str | None:
    """Return what names this request for its caller: the same again is answered from the same call."""
    key = (
        http_request.headers.get("idempotency-key")
        or http_request.headers.get("x-client-request-id")
        or parsed.request_id
    )
    if key is None:
        return None
    if not IDEMPOTENCY_KEY_PATTERN.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key


def _scoped_key(caller: Caller, key: str | None) -> str | None:
    """Return a key as it is kept. Each narrow token has its own: who holds another reads none of its streams."""
    token_id = caller.identity.token_id
    return key if key is None or token_id is None else f"{token_id}\n{key}"


def _request_hash(http_request: LiveHttpRequest, parsed: ParsedRequest) -> bytes:
    """Return what the same request has in common: its address, its dialect, which not all addresses say, its body."""
    return hashlib.sha256(
        b"\n".join((http_request.path.encode(), parsed.wire.value.encode(), http_request.body))
    ).digest()


def _in_order(runtime: LiveRuntime, model: str, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the targets with a key in the order in which they will be called."""
    usable = with_key(model, order_targets(targets, runtime.rng))
    if len(usable) == 1:
        return (usable[0],)
    # One place each, so that nobody shuffles them again: the first one's account is opened with the admission.
    return tuple(replace(target, position=place) for place, target in enumerate(usable, 1))


def _admission_request(
    runtime: LiveRuntime,
    caller: Caller,
    http_request: LiveHttpRequest,
    parsed: ParsedRequest,
    targets: tuple[Target, ...],
    attribution: UsageAttribution,
    allowed: SiteLimits,
    permitted: Permitted,
    stream_id: str,
) -> AdmissionRequest:
    request = parsed.request
    answer_tokens = permitted.max_output_tokens
    if answer_tokens is None:
        answer_tokens = DEFAULT_OUTPUT_TOKENS * request.choice_count if isinstance(request, ChatRequest) else 0
    kind = LimitKind.CHAT if isinstance(request, ChatRequest) else LimitKind.EMBEDDINGS
    call = CallOpened(1, f"{http_request.request_id}:1", targets[0], clock.now(), targets[0].tier_of(request))
    # Should this process be killed, its prompt is what is known of the call.
    usage_record = to_open_usage_record(attribution, call, Usage(permitted.input_tokens))
    return AdmissionRequest(
        site=caller.site,
        request_id=http_request.request_id,
        tokens=permitted.input_tokens + answer_tokens,
        windows=allowed.windows_for(kind, request.model),
        concurrency=allowed.concurrency,
        lease_seconds=settings.LIVE_LEASE_SECONDS,
        nonce=caller.nonce,
        idempotency_key=_scoped_key(caller, idempotency_key(http_request, parsed)),
        body_hash=_request_hash(http_request, parsed),
        stream_id=stream_id,
        cache_key=_cache_key(caller, http_request, parsed),
        process=runtime.heartbeat.id,
        open_usage_record=encode_usage_record(usage_record),
    )


def _cache_key(caller: Caller, http_request: LiveHttpRequest, parsed: ParsedRequest) -> bytes | None:
    """Return under which key the answer would be kept; None where it is not looked for."""
    if parsed.streams or not may_cache(http_request) or not isinstance(parsed.request, ChatRequest):
        return None
    # Who insists on a provider gets no other's answer.
    return cache.answer_key(caller.site, parsed.request, f"{parsed.wire.value}/{parsed.provider or ''}")


def may_cache(http_request: LiveHttpRequest) -> bool:
    """Say whether answers are kept, and the caller has nothing against that."""
    directives = http_request.headers.get("cache-control", "")
    return bool(settings.CACHE_TTL_SECONDS) and "no-store" not in directives and "no-cache" not in directives


async def _admit_without_redis(runtime: LiveRuntime, caller: Caller, error: RedisUnavailable) -> None:
    """Let a request in that nobody counts, if the desk is set to; a signed one still only once."""
    metrics.redis_unavailable.labels(settings.LIVE_FAIL_MODE).inc()
    log.error("live_redis_unavailable", answer=settings.LIVE_FAIL_MODE, error=str(error))
    if settings.LIVE_FAIL_MODE == "closed":
        raise RateLimiterUnavailable from error
    await consume_nonce(runtime, caller)


def _rate_limit_error(limited: OverRateLimit) -> RateLimitExceeded:
    window = limited.window
    metrics.rate_limited.labels(window.unit).inc()
    if limited.never_fits:
        raise InvalidRequest(
            f"The request needs about {limited.needs} {window.unit}, and the limit is {window.limit} in "
            f"{window.seconds} s ({window.name}); ask for fewer.",
            "max_tokens",
        )
    return RateLimitExceeded(
        f"Rate limit reached for {window.unit} ({window.name}): {window.limit} in {window.seconds} s. "
        f"Try again in {limited.retry_after_seconds:.1f} s.",
        limited.retry_after_seconds,
    )


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)

"""Admits live requests: permission, rate limits, idempotency and the response cache, in one round trip to Redis.

`permit` (`inference.permit`) decides without Redis; then `tenants.rate_limiting.admission.admit` does the rest
atomically: it consumes the nonce, looks up the idempotency key and the cache, counts against the rate limits, and
opens the record of the first call.
"""

import asyncio
import re
import time
from dataclasses import dataclass, replace

import msgspec
import structlog
from django.conf import settings

from core import clock, metrics
from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import heartbeat_key
from inference import cache
from inference.calls import CallOpened
from inference.continuation import can_be_continued
from inference.permit import Permitted, permit
from inference.routing import Target, get_routing_async, order_targets, with_key
from inference.usage_records import UsageAttribution, to_open_usage_record
from live.errors import ConcurrencyLimitExceeded, RateLimiterUnavailable, RateLimitExceeded
from live.request import Caller, LiveRequest
from live.runtime import LiveRuntime
from metering.buffer import encode_usage_record
from providers.invalid_request import InvalidRequest
from providers.types import ChatRequest, InferenceRequest, Usage
from streams.entries import StreamRecord, new_stream_id, stream_age_seconds
from streams.errors import StreamUnknown
from streams.reader import POLL_SECONDS, find_record
from tenants import authentication
from tenants.errors import IdempotencyConflict, ReplayedRequest
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
    OverConcurrencyLimit,
    OverRateLimit,
)
from tenants.rate_limiting.windows import RemainingQuota

log = structlog.get_logger(__name__)

IDEMPOTENCY_KEY_PATTERN = re.compile(r"[\x20-\x7e]{1,255}")
#: How long to wait for a stream that another process is about to start.
STREAM_START_TIMEOUT_SECONDS = 5.0
#: Tokens reserved for an answer whose length is not limited.
DEFAULT_OUTPUT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that may run now."""

    live_request: LiveRequest
    #: With its output bounded as the caller's token bounds it.
    request: InferenceRequest
    #: In the order in which they will be called.
    targets: tuple[Target, ...]
    attribution: UsageAttribution
    admission: AdmissionRequest
    #: None: admitted without being counted, because Redis is unavailable.
    reservation: Admitted | None
    input_tokens: int
    #: Whether its answer, or its vectors, may be cached.
    may_cache: bool = False

    @property
    def caller(self) -> Caller:
        return self.live_request.caller

    @property
    def quotas(self) -> tuple[RemainingQuota, ...]:
        return self.reservation.quotas if self.reservation else ()

    @property
    def is_continuable(self) -> bool:
        """Another provider may continue the answer if it is cut: the caller wants that, and the request allows it."""
        return (
            self.live_request.allows_continuation
            and isinstance(self.request, ChatRequest)
            and can_be_continued(self.request)
        )


async def admit_request(runtime: LiveRuntime, live_request: LiveRequest) -> AdmittedRequest | AttachToStream | CacheHit:
    """Admit a request, or find its answer: a stream to attach to, or a cached body.

    Raises:
        InvalidRequest, RequestTooLong: the request cannot be served as it is.
        ModelNotAllowed, UnknownModel, NoProviderKey: no target serves the model, or the caller may not use it.
        RateLimitExceeded: there is no room now.
        IdempotencyConflict: the idempotency key was used for another body.
        ReplayedRequest: the signed request was admitted before.
        RateLimiterUnavailable: Redis is unavailable, and LIVE_FAIL_MODE is `closed`.
    """
    caller, site = live_request.caller, live_request.caller.identity.site
    routing = await get_routing_async(runtime.threads)
    permitted = permit(live_request.request, site, caller.identity.grant, routing, provider=live_request.provider)
    targets = _in_order(runtime, permitted.request.model, permitted.targets)
    limits = await get_limits_async(site.id, runtime.threads)
    attribution = UsageAttribution(site.id, permitted.request.model, live_request.request_id)
    admission = _admission_request(runtime, live_request, permitted, targets, attribution, limits)
    outcome: AdmissionOutcome | None
    try:
        outcome = await _admit_replacing_lost_stream(runtime, caller, admission)
    except RedisUnavailable as error:
        await _admit_without_redis(runtime, caller, error)
        outcome = None
    match outcome:
        case Admitted() | None:
            return AdmittedRequest(
                live_request,
                permitted.request,
                targets,
                attribution,
                admission,
                outcome,
                permitted.input_tokens,
                _may_cache(live_request),
            )
        case AttachToStream() | CacheHit():
            return outcome
        case OverRateLimit():
            raise _rate_limit_error(outcome)
        case OverConcurrencyLimit(limit):
            metrics.rate_limited.labels("concurrency").inc()
            raise ConcurrencyLimitExceeded(f"{limit} requests of this site are running, its concurrency limit.", 1.0)
        case NonceAlreadyUsed():
            raise ReplayedRequest
        case IdempotencyKeyReused():
            raise IdempotencyConflict


async def consume_nonce(runtime: LiveRuntime, caller: Caller) -> None:
    """Consume a signed request's nonce without an admission. Raises `ReplayedRequest` if it was used before."""
    if caller.nonce is not None:
        await runtime.threads.run(authentication.consume_nonce, caller.identity.site, caller.nonce)


async def _admit_replacing_lost_stream(
    runtime: LiveRuntime, caller: Caller, admission: AdmissionRequest
) -> AdmissionOutcome:
    outcome = await admit(runtime.redis, admission, runtime.spawn)
    if isinstance(outcome, AttachToStream) and await _is_stream_lost(runtime, caller, outcome.stream_id):
        # Its answer cannot be read any more, so the request runs again. The nonce was consumed by the first `admit`.
        await release_idempotency_key(runtime.redis, admission, outcome)
        return await admit(runtime.redis, msgspec.structs.replace(admission, nonce=None), runtime.spawn)
    return outcome


async def _is_stream_lost(runtime: LiveRuntime, caller: Caller, stream_id: str) -> bool:
    """Whether a stream's log has expired, or its process died before the stream ended."""
    try:
        record = await _wait_for_record(runtime, caller, stream_id)
    except StreamUnknown:
        return True
    if record.end is not None or record.process == runtime.heartbeat.id:
        return False
    with translate_redis_errors():
        return not await runtime.redis.exists(heartbeat_key(record.process))


async def _wait_for_record(runtime: LiveRuntime, caller: Caller, stream_id: str) -> StreamRecord:
    """Return a stream's record, which a process that is about to start it may not have written yet.

    Raises `StreamUnknown`.
    """
    started_at = time.monotonic()
    while True:
        try:
            return await find_record(runtime.process_streams, stream_id, site=caller.site)
        except StreamUnknown:
            # By the id's time, which is another machine's clock, or by the time spent here: the clocks may differ.
            if max(stream_age_seconds(stream_id), time.monotonic() - started_at) > STREAM_START_TIMEOUT_SECONDS:
                raise
        await asyncio.sleep(POLL_SECONDS)


def _in_order(runtime: LiveRuntime, model: str, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the targets with a key in the order in which they will be called."""
    usable = with_key(model, order_targets(targets, runtime.rng))
    if len(usable) == 1:
        return (usable[0],)
    # A distinct position each, so that they are not shuffled again: the admission opens the call to the first.
    return tuple(replace(target, position=position) for position, target in enumerate(usable, 1))


def _admission_request(
    runtime: LiveRuntime,
    live_request: LiveRequest,
    permitted: Permitted,
    targets: tuple[Target, ...],
    attribution: UsageAttribution,
    limits: SiteLimits,
) -> AdmissionRequest:
    request, caller = permitted.request, live_request.caller
    output_tokens = permitted.max_output_tokens
    if output_tokens is None:
        output_tokens = DEFAULT_OUTPUT_TOKENS * request.choice_count if isinstance(request, ChatRequest) else 0
    kind = LimitKind.CHAT if isinstance(request, ChatRequest) else LimitKind.EMBEDDINGS
    call = CallOpened(1, f"{live_request.request_id}:1", targets[0], clock.now(), targets[0].tier_of(request))
    # If this process is killed, the size of the prompt is all that is known of the call's usage.
    usage_record = to_open_usage_record(attribution, call, Usage(permitted.input_tokens))
    return AdmissionRequest(
        site=caller.site,
        request_id=live_request.request_id,
        tokens=permitted.input_tokens + output_tokens,
        windows=limits.windows_for(kind, request.model),
        concurrency=limits.concurrency,
        lease_seconds=settings.LIVE_LEASE_SECONDS,
        nonce=caller.nonce,
        idempotency_key=_scoped_key(caller, _valid_key(live_request.idempotency_key)),
        body_hash=live_request.body_hash,
        stream_id=new_stream_id(),
        cache_key=_cache_key(live_request, request),
        process=runtime.heartbeat.id,
        open_usage_record=encode_usage_record(usage_record),
    )


def _valid_key(key: str | None) -> str | None:
    """Return the idempotency key. Raises `InvalidRequest`."""
    if key is not None and not IDEMPOTENCY_KEY_PATTERN.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key


def _scoped_key(caller: Caller, key: str | None) -> str | None:
    """Return the key as stored: restricted credentials have keys of their own."""
    scope = caller.identity.idempotency_scope
    return key if key is None or not scope else f"{scope}\n{key}"


def _cache_key(live_request: LiveRequest, request: InferenceRequest) -> bytes | None:
    """Return the key of the answer in the response cache; None: it is not looked up."""
    if live_request.streams or not _may_cache(live_request) or not isinstance(request, ChatRequest):
        return None
    # A caller that insists on a provider must not get another provider's answer.
    variant = f"{live_request.wire_format}/{live_request.provider or ''}"
    return cache.answer_key(live_request.caller.site, request, variant)


def _may_cache(live_request: LiveRequest) -> bool:
    return bool(settings.CACHE_TTL_SECONDS) and live_request.allows_cache


async def _admit_without_redis(runtime: LiveRuntime, caller: Caller, error: RedisUnavailable) -> None:
    """Admit a request without counting it, unless LIVE_FAIL_MODE is `closed`. A nonce is consumed in Postgres."""
    metrics.redis_unavailable.labels(settings.LIVE_FAIL_MODE).inc()
    log.error("live_redis_unavailable", fail_mode=settings.LIVE_FAIL_MODE, error=str(error))
    if settings.LIVE_FAIL_MODE == "closed":
        raise RateLimiterUnavailable from error
    await consume_nonce(runtime, caller)


def _rate_limit_error(limited: OverRateLimit) -> RateLimitExceeded:
    window = limited.window
    metrics.rate_limited.labels(window.unit).inc()
    if limited.never_fits:
        raise InvalidRequest(
            f"The request needs about {limited.needed} {window.unit}, and the limit is {window.limit} in "
            f"{window.seconds} s ({window.name}); request fewer.",
            "max_tokens",
        )
    return RateLimitExceeded(
        f"Rate limit reached for {window.unit} ({window.name}): {window.limit} in {window.seconds} s. "
        f"Try again in {limited.retry_after_seconds:.1f} s.",
        limited.retry_after_seconds,
    )

"""Admission of live requests: admit, renew and settle, each in one round trip to Redis, exact over all processes.

Keys of a site, with what bounds them; all have a TTL:

    nd:{site}:window:<unit>:<seconds>:<name>   at most 2,072 bytes each, whatever the limit (`sliding.lua`)
    nd:{site}:running                          an entry for each running request that holds a slot or reserved tokens
    nd:{site}:nonce:<digest>                   5 minutes, one for each signed request that was admitted or answered
    nd:{site}:key:<digest>                     while its request is running, and IDEMPOTENCY_TTL_SECONDS longer
    nd:{site}:cache:<key>                      a response, as long as its caller said

And of no site, shared with metering: the open calls of a process, and the list of usage records (`core.redis_keys`).
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeAlias, cast

from django.conf import settings
from msgspec import structs
from msgspec.structs import astuple
from redis.asyncio import Redis

from core.lua import pack_doubles, unpack_doubles
from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from tenants.rate_limiting.scripts import (
    SCRIPTS,
    AdmitArguments,
    AdmitCode,
    AdmitKeys,
    AdmitNumbers,
    AdmitReply,
    AdmittedReply,
    AdmitWindow,
    RejectedReply,
    RenewArguments,
    RenewKeys,
    Scripts,
    SettleArguments,
    SettleCacheEntry,
    SettleKeys,
    SettleNumbers,
    SettleWindow,
)
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
    RequestLease,
    Settlement,
    to_settlement,
)
from tenants.rate_limiting.windows import (
    MAX_LIMIT,
    MAX_TOKEN_COUNT,
    SlidingWindow,
    encode_text,
    site_key_prefix,
    to_quotas,
)

#: The `running` set of a site has a TTL of a day, renewed with each admission and renewal.
MAX_LEASE_SECONDS = 86_400
MAX_WINDOWS = 64
MAX_USAGE_RECORDS = 1_000

#: Starts work in the background and keeps a reference to its task.
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], object]


async def admit(redis: Redis, request: AdmissionRequest, spawn: Spawn, scripts: Scripts = SCRIPTS) -> AdmissionOutcome:
    """Admit a request, or return why not. Nothing is counted unless it is admitted.

    If this is canceled, `spawn` starts the release of what may have been admitted, in the background.

    Raises:
        RedisUnavailable: whether it was counted is unknown.
    """
    tokens = _clamp_tokens(request.tokens)
    try:
        reply = await scripts.admit.run(redis, _admit_keys(request), _admit_arguments(request, tokens))
    except asyncio.CancelledError:
        # The request may have been admitted before its task was canceled, and then nothing else would settle it.
        spawn(_settle_canceled(redis, request, scripts))
        raise
    return _to_outcome(request, tokens, AdmitReply(*reply))


async def settle(redis: Redis, settlement: Settlement, scripts: Scripts = SCRIPTS) -> bool:
    """Settle a request; return whether it held its slot until now. Settling twice does no harm.

    Raises:
        RedisUnavailable: it may be settled again.
    """
    prefix, windows = site_key_prefix(settlement.site), _token_windows(settlement.windows)
    running = prefix + b"running"
    keys = SettleKeys(
        running=running,
        open_calls=open_calls_key(settlement.process),
        usage_records=USAGE_RECORDS_KEY,
        idempotency=_idempotency_redis_key(prefix, settlement.idempotency_key) or running,
    )
    window_keys = [prefix + window.key for window in windows]
    cache_keys = [prefix + b"cache:" + entry.key for entry in settlement.cache]
    arguments = SettleArguments(
        request_id=settlement.request_id,
        body_hash=settlement.body_hash,
        stream_id=settlement.stream_id,
        idempotency_key_action=settlement.idempotency_key_action,
        numbers=_settle_numbers(settlement, windows),
    )
    bodies = [entry.body for entry in settlement.cache]
    if len(settlement.usage_records) > MAX_USAGE_RECORDS:
        raise ValueError(f"{len(settlement.usage_records)} usage records are too many for one request.")
    held_slot = await scripts.settle.run(
        redis,
        [*astuple(keys), *window_keys, *cache_keys],
        [*astuple(arguments), *bodies, *settlement.usage_records],
    )
    return bool(held_slot)


async def release_idempotency_key(
    redis: Redis, request: AdmissionRequest, attached: AttachToStream, scripts: Scripts = SCRIPTS
) -> None:
    """Delete the idempotency key of a request if it still names a stream that can no longer be read.

    Raises: as `settle`.
    """
    settlement = to_settlement(request, None, used_tokens=0, idempotency_key_action="drop")
    await settle(redis, structs.replace(settlement, stream_id=attached.stream_id), scripts)


async def renew(redis: Redis, leases: Iterable[RequestLease], lease_seconds: int, scripts: Scripts = SCRIPTS) -> int:
    """Renew leases from now on; return how many had not expired. One round trip per site.

    Raises:
        RedisUnavailable: some may not be renewed.
    """
    renewed = 0
    for site, group in groupby(sorted(leases, key=lambda lease: lease.site), key=lambda lease: lease.site):
        renewed += await _renew_site(redis, site, list(group), lease_seconds, scripts)
    return renewed


async def open_request_ids(redis: Redis, process: str) -> set[str]:
    """Return the requests of a process that have an open usage record. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        ids = await redis.hkeys(open_calls_key(process))
    return {request_id.decode() for request_id in cast(list[bytes], ids)}


async def delete_open_calls(redis: Redis, process: str, request_ids: Collection[str]) -> None:
    """Delete open usage records of calls that were never made. Raises `RedisUnavailable`."""
    if request_ids:
        with translate_redis_errors():
            await redis.hdel(open_calls_key(process), *request_ids)


async def get_cached_answers(redis: Redis, site: str, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the cached answers of a site, None for each cache miss. Raises `RedisUnavailable`."""
    prefix = site_key_prefix(site)
    if not keys:
        return []
    with translate_redis_errors():
        answers = await redis.mget([prefix + b"cache:" + key for key in keys])
    return cast(list[bytes | None], answers)


async def _settle_canceled(redis: Redis, request: AdmissionRequest, scripts: Scripts) -> None:
    """Settle a request that may have been admitted. The reply is lost, but the lease tells when that was."""
    settlement = structs.replace(
        to_settlement(request, None, used_tokens=0, idempotency_key_action="drop"),
        admitted_at_us=-1000 * _lease_ms(request.lease_seconds),
    )
    with suppress(RedisUnavailable):
        await settle(redis, settlement, scripts)


async def _renew_site(redis: Redis, site: str, leases: list[RequestLease], lease_seconds: int, scripts: Scripts) -> int:
    prefix = site_key_prefix(site)
    keyed = [
        (key, lease.stream_id) for lease in leases if (key := _idempotency_redis_key(prefix, lease.idempotency_key))
    ]
    keys = RenewKeys(running=prefix + b"running")
    arguments = RenewArguments(lease_ms=_lease_ms(lease_seconds), request_count=len(leases))
    request_ids = [lease.request_id for lease in leases]
    renewed = await scripts.renew.run(
        redis,
        [*astuple(keys), *(key for key, _ in keyed)],
        [*astuple(arguments), *request_ids, *(stream_id for _, stream_id in keyed)],
    )
    return int(renewed)


def _admit_keys(request: AdmissionRequest) -> list[Any]:
    prefix = site_key_prefix(request.site)
    # A key that the request does not use is given as this one, which the script reads as absent.
    running = prefix + b"running"
    keys = AdmitKeys(
        running=running,
        open_calls=running if request.open_usage_record is None else open_calls_key(request.process),
        nonce=running if request.nonce is None else prefix + b"nonce:" + _digest(request.nonce),
        idempotency=_idempotency_redis_key(prefix, request.idempotency_key) or running,
        cache=running if request.cache_key is None else prefix + b"cache:" + request.cache_key,
    )
    return [*astuple(keys), *(prefix + window.key for window in request.windows)]


def _admit_arguments(request: AdmissionRequest, tokens: int) -> tuple[Any, ...]:
    if len(request.windows) > MAX_WINDOWS:
        raise ValueError(f"{len(request.windows)} windows are too many.")
    if request.idempotency_key is not None and len(request.body_hash) != 32:
        raise ValueError("The hash of the body must have 32 bytes.")
    takes_slot = request.concurrency is not None or any(window.unit == "tokens" for window in request.windows)
    numbers = AdmitNumbers(
        lease_ms=_lease_ms(request.lease_seconds),
        takes_slot=int(takes_slot),
        max_concurrency=-1 if request.concurrency is None else min(max(request.concurrency, 0), MAX_LIMIT),
        idempotency_ttl_ms=settings.IDEMPOTENCY_TTL_SECONDS * 1000,
    )
    windows = [
        AdmitWindow(needed=window.units_for(tokens), limit=window.exact_limit, span_us=window.span_us)
        for window in request.windows
    ]
    arguments = AdmitArguments(
        request_id=request.request_id,
        body_hash=request.body_hash,
        stream_id=request.stream_id,
        open_usage_record=request.open_usage_record or b"",
        numbers=pack_doubles(numbers, windows),
    )
    return astuple(arguments)


def _to_outcome(request: AdmissionRequest, tokens: int, reply: AdmitReply) -> AdmissionOutcome:
    match reply.code:
        case AdmitCode.ADMITTED:
            admitted, quotas = unpack_doubles(reply.payload, AdmittedReply)
            return Admitted(to_quotas(request.windows, quotas), int(admitted.admitted_at_us))
        case AdmitCode.OVER_RATE_LIMIT:
            rejected, quotas = unpack_doubles(reply.payload, RejectedReply)
            window = request.windows[int(rejected.fullest_window)]
            retry_after_seconds = min(rejected.wait_us / 1e6, window.seconds)
            return OverRateLimit(
                window, retry_after_seconds, to_quotas(request.windows, quotas), window.units_for(tokens)
            )
        case AdmitCode.OVER_CONCURRENCY_LIMIT:
            return OverConcurrencyLimit(request.concurrency or 0)
        case AdmitCode.NONCE_ALREADY_USED:
            return NonceAlreadyUsed()
        case AdmitCode.IDEMPOTENCY_KEY_REUSED:
            return IdempotencyKeyReused()
        case AdmitCode.ATTACH_TO_STREAM:
            return AttachToStream(reply.payload.decode())
        case AdmitCode.CACHE_HIT:
            return CacheHit(reply.payload)
    raise AssertionError(f"admit.lua returned {reply!r}.")


def _settle_numbers(settlement: Settlement, windows: Sequence[SlidingWindow]) -> bytes:
    unreserved = _clamp_tokens(settlement.used_tokens) - _clamp_tokens(settlement.reserved_tokens)
    numbers = SettleNumbers(
        admitted_at_us=settlement.admitted_at_us,
        unreserved_tokens=unreserved if settlement.admitted_at_us else 0,
        window_count=len(windows),
        cache_count=len(settlement.cache),
        idempotency_ttl_ms=settings.IDEMPOTENCY_TTL_SECONDS * 1000,
    )
    spans = [SettleWindow(span_us=window.span_us) for window in windows]
    ttls = [SettleCacheEntry(ttl_ms=max(entry.ttl_seconds, 1) * 1000) for entry in settlement.cache]
    return pack_doubles(numbers, [*spans, *ttls])


def _token_windows(windows: Iterable[SlidingWindow]) -> list[SlidingWindow]:
    return [window for window in windows if window.unit == "tokens"]


def _idempotency_redis_key(prefix: bytes, idempotency_key: str | None) -> bytes | None:
    return None if idempotency_key is None else prefix + b"key:" + _digest(encode_text(idempotency_key))


def _digest(text: bytes) -> bytes:
    """Return the digest that represents a text in a key: of one length, whatever was sent."""
    return hashlib.sha256(text).digest()


def _lease_ms(seconds: int) -> int:
    return min(max(seconds, 1), MAX_LEASE_SECONDS) * 1000


def _clamp_tokens(tokens: int) -> int:
    return min(max(tokens, 0), MAX_TOKEN_COUNT)

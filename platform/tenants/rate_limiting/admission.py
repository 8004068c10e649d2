"""Begin, prolong and end requests in Redis, each in one round trip, exact over any number of processes.

Keys of a site, with what bounds them; all have a time to live:

    nd:{site}:window:<unit>:<seconds>:<name>   at most 2,072 bytes each, whatever the limit (`sliding.lua`)
    nd:{site}:running                          an entry for each request that runs and reserved something
    nd:{site}:nonce:<digest>                   5 minutes, one for each signed request that was answered
    nd:{site}:key:<digest>                     while its request runs and IDEMPOTENCY_TTL_SECONDS beyond
    nd:{site}:cache:<key>                      an answer, as long as its caller said

And of no site: `nd:open:<process>`, a hash of the accounts of running requests, and `nd:usage`, a list of rows.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, cast

from django.conf import settings
from msgspec import structs
from redis.asyncio import Redis

from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from core.tasks import BackgroundTasks
from tenants.rate_limiting.packing import pack_doubles, to_quotas, unpack_doubles
from tenants.rate_limiting.scripts import SCRIPTS, Scripts
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
from tenants.rate_limiting.windows import MAX_LIMIT, MAX_TOKEN_COUNT, SlidingWindow, encode_text, site_key_prefix

#: Redis keeps what runs for a day after the last one began.
MAX_LEASE_SECONDS = 86_400
MAX_WINDOWS = 64
MAX_USAGE_ROWS = 1_000


async def admit(server: Redis, ask: AdmissionRequest, scripts: Scripts = SCRIPTS) -> AdmissionOutcome:
    """Let a request begin, or say why not. Nothing is counted unless it may begin.

    Raises:
        RedisAway: whether it was counted is not known.
    """
    tokens = min(max(ask.tokens, 0), MAX_TOKEN_COUNT)
    try:
        answer = await scripts.admit.run(server, _admit_keys(ask), _admit_arguments(ask, tokens))
    except asyncio.CancelledError:
        # Whoever asked has gone, perhaps after it was let in: nobody else would end what then nobody began.
        _release_tasks.spawn(_release_unclaimed(server, ask, scripts), name="admission-release")
        raise
    return _to_outcome(ask, tokens, answer)


async def settle(server: Redis, ended: Settlement, scripts: Scripts = SCRIPTS) -> bool:
    """End a request; return whether it was held until now. Doing it twice does no harm.

    Raises:
        RedisAway: it may be done again.
    """
    prefix, windows = site_key_prefix(ended.site), _token_windows(ended.windows)
    running = prefix + b"running"
    keys = [
        running,
        open_calls_key(ended.process),
        USAGE_RECORDS_KEY,
        _idempotency_redis_key(prefix, ended.idempotency_key) or running,
        *(prefix + window.key for window in windows),
        *(prefix + b"cache:" + each.key for each in ended.cache),
    ]
    if len(ended.usage_rows) > MAX_USAGE_ROWS:
        raise ValueError(f"{len(ended.usage_rows)} rows of usage are too many for one request.")
    beyond = _clamp_tokens(ended.used_tokens) - _clamp_tokens(ended.reserved_tokens) if ended.at else 0
    figures = [
        ended.at,
        beyond,
        len(windows),
        len(ended.cache),
        settings.IDEMPOTENCY_TTL_SECONDS * 1000,
        *(window.seconds * 1_000_000 for window in windows),
        *(max(each.ttl_seconds, 1) * 1000 for each in ended.cache),
    ]
    arguments = [
        ended.request_id,
        ended.body_hash,
        ended.stream_id,
        ended.outcome,
        pack_doubles(figures),
        *(each.body for each in ended.cache),
        *ended.usage_rows,
    ]
    return bool(await scripts.settle.run(server, keys, arguments))


async def release_idempotency_key(
    server: Redis, ask: AdmissionRequest, gone: AttachToStream, scripts: Scripts = SCRIPTS
) -> None:
    """Free an ask's idempotency key of a stream that cannot be read any more, unless it stands for another by now.

    Raises: as `settle`.
    """
    ended = to_settlement(ask, None, used_tokens=0, outcome="drop")
    await settle(server, structs.replace(ended, stream_id=gone.stream_id), scripts)


async def renew(server: Redis, leases: Iterable[RequestLease], lease_seconds: int, scripts: Scripts = SCRIPTS) -> int:
    """Prolong leases from now; return how many of the requests are still held. One round trip for each site.

    Raises:
        RedisAway: some may not be prolonged.
    """
    held = 0
    for site, group in groupby(sorted(leases, key=lambda lease: lease.site), key=lambda lease: lease.site):
        held += await _renew_site(server, site, list(group), lease_seconds, scripts)
    return held


async def open_request_ids(server: Redis, process: str) -> set[str]:
    """Return the requests of a process whose accounts are open. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        found = await server.hkeys(open_calls_key(process))
    return {each.decode() for each in cast(list[bytes], found)}


async def delete_open_calls(server: Redis, process: str, request_ids: Collection[str]) -> None:
    """Take away open accounts of calls that were never made. Raises `RedisUnavailable`."""
    if request_ids:
        with translate_redis_errors():
            await server.hdel(open_calls_key(process), *request_ids)


async def get_cached_answers(server: Redis, site: str, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the cached answers of a site, None for those that are not known. Raises `RedisUnavailable`."""
    prefix = site_key_prefix(site)
    if not keys:
        return []
    with translate_redis_errors():
        found = await server.mget([prefix + b"cache:" + key for key in keys])
    return cast(list[bytes | None], found)


async def _release_unclaimed(server: Redis, ask: AdmissionRequest, scripts: Scripts) -> None:
    """End what may have begun. When that was nobody was told, but its lease says it."""
    ended = structs.replace(
        to_settlement(ask, None, used_tokens=0, outcome="drop"), at=-1000 * _lease_ms(ask.lease_seconds)
    )
    with suppress(RedisUnavailable):
        await settle(server, ended, scripts)


_release_tasks = BackgroundTasks()


async def _renew_site(
    server: Redis, site: str, leases: list[RequestLease], lease_seconds: int, scripts: Scripts
) -> int:
    prefix = site_key_prefix(site)
    keyed = [
        (key, lease.stream_id) for lease in leases if (key := _idempotency_redis_key(prefix, lease.idempotency_key))
    ]
    keys = [prefix + b"running", *(key for key, _ in keyed)]
    ids = [lease.request_id for lease in leases]
    arguments = [_lease_ms(lease_seconds), len(ids), *ids, *(stream_id for _, stream_id in keyed)]
    return int(await scripts.renew.run(server, keys, arguments))


def _admit_keys(ask: AdmissionRequest) -> list[bytes]:
    prefix = site_key_prefix(ask.site)
    # What is not asked for is named like this one, which the script reads as absent.
    running = prefix + b"running"
    return [
        running,
        running if ask.open_usage_record is None else open_calls_key(ask.process),
        running if ask.nonce is None else prefix + b"nonce:" + _digest(ask.nonce),
        _idempotency_redis_key(prefix, ask.idempotency_key) or running,
        running if ask.cache_key is None else prefix + b"cache:" + ask.cache_key,
        *(prefix + window.key for window in ask.windows),
    ]


def _admit_arguments(ask: AdmissionRequest, tokens: int) -> list[Any]:
    if len(ask.windows) > MAX_WINDOWS:
        raise ValueError(f"{len(ask.windows)} windows are too many.")
    if ask.idempotency_key is not None and len(ask.body_hash) != 32:
        raise ValueError("The hash of the body must be of 32 bytes.")
    is_held = ask.concurrency is not None or any(window.unit == "tokens" for window in ask.windows)
    at_once = -1 if ask.concurrency is None else min(max(ask.concurrency, 0), MAX_LIMIT)
    figures = [_lease_ms(ask.lease_seconds), int(is_held), at_once]
    for window in ask.windows:
        figures += (window.needs(tokens), min(window.limit, MAX_LIMIT), window.seconds * 1_000_000)
    kept = settings.IDEMPOTENCY_TTL_SECONDS * 1000
    return [ask.request_id, ask.body_hash, ask.stream_id, ask.open_usage_record or b"", pack_doubles(figures), kept]


def _to_outcome(ask: AdmissionRequest, tokens: int, answer: list[Any]) -> AdmissionOutcome:
    match answer:
        case [0, packed]:
            at, *left = unpack_doubles(packed)
            return Admitted(to_quotas(ask.windows, left), int(at))
        case [1, packed]:
            index, wait, *left = unpack_doubles(packed)
            window = ask.windows[int(index)]
            return OverRateLimit(
                window, min(wait / 1e6, window.seconds), to_quotas(ask.windows, left), window.needs(tokens)
            )
        case [2]:
            return OverConcurrencyLimit(ask.concurrency or 0)
        case [3]:
            return NonceAlreadyUsed()
        case [4]:
            return IdempotencyKeyReused()
        case [5, stream_id]:
            return AttachToStream(stream_id.decode())
        case [6, body]:
            return CacheHit(body)
    raise AssertionError(f"The script answered {answer!r}.")


def _token_windows(windows: Iterable[SlidingWindow]) -> list[SlidingWindow]:
    return [window for window in windows if window.unit == "tokens"]


def _idempotency_redis_key(prefix: bytes, idempotency_key: str | None) -> bytes | None:
    return None if idempotency_key is None else prefix + b"key:" + _digest(encode_text(idempotency_key))


def _digest(text: bytes) -> bytes:
    """Return what stands for it in a key: of one length, whatever was sent."""
    return hashlib.sha256(text).digest()


def _lease_ms(seconds: int) -> int:
    return min(max(seconds, 1), MAX_LEASE_SECONDS) * 1000


def _clamp_tokens(tokens: int) -> int:
    return min(max(tokens, 0), MAX_TOKEN_COUNT)

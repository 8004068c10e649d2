"""Begin, prolong and end requests in Redis, each in one round trip, exact over any number of processes.

Keys of a site, with what bounds them; all have a time to live:

    nd:{site}:window:<unit>:<seconds>:<name>   at most 2,072 bytes each, whatever the limit (`sliding.lua`)
    nd:{site}:running                          an entry for each request that runs and reserved something
    nd:{site}:nonce:<digest>                   5 minutes, one for each signed request that was answered
    nd:{site}:key:<digest>                     while its request runs and IDEMPOTENCY_SECONDS beyond
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

from core.redis import RedisAway, redis_errors
from tenants.admission.asks import (
    Admitted,
    Ask,
    Attach,
    Hit,
    KeyReused,
    Lease,
    Limited,
    NonceUsed,
    Outcome,
    Settlement,
    TooManyAtOnce,
    settlement,
)
from tenants.admission.packing import doubles, left_of, numbers
from tenants.admission.scripts import SCRIPTS, Scripts
from tenants.admission.windows import LARGEST_LIMIT, LARGEST_TOKENS, Window, encode, site_prefix

USAGE = b"nd:usage"
#: Redis keeps what runs for a day after the last one began.
LONGEST_LEASE_SECONDS = 86_400
MOST_WINDOWS = 64
MOST_ROWS = 1_000


async def admit(server: Redis, ask: Ask, scripts: Scripts = SCRIPTS) -> Outcome:
    """Let a request begin, or say why not. Nothing is counted unless it may begin.

    Raises:
        RedisAway: whether it was counted is not known.
    """
    tokens = min(max(ask.tokens, 0), LARGEST_TOKENS)
    try:
        answer = await scripts.admit.run(server, _keys_to_admit(ask), _arguments_to_admit(ask, tokens))
    except asyncio.CancelledError:
        # Whoever asked has gone, perhaps after it was let in: nobody else would end what then nobody began.
        undoing = asyncio.create_task(_undo(server, ask, scripts))
        _undone.add(undoing)
        undoing.add_done_callback(_undone.discard)
        raise
    return _to_outcome(ask, tokens, answer)


async def settle(server: Redis, ended: Settlement, scripts: Scripts = SCRIPTS) -> bool:
    """End a request; return whether it was held until now. Doing it twice does no harm.

    Raises:
        RedisAway: it may be done again.
    """
    prefix, windows = site_prefix(ended.site), _of_tokens(ended.windows)
    running = prefix + b"running"
    keys = [
        running,
        open_key(ended.process),
        USAGE,
        _key_of(prefix, ended.idempotency_key) or running,
        *(prefix + window.key for window in windows),
        *(prefix + b"cache:" + each.key for each in ended.cache),
    ]
    if len(ended.usage_rows) > MOST_ROWS:
        raise ValueError(f"{len(ended.usage_rows)} rows of usage are too many for one request.")
    beyond = _bounded(ended.used_tokens) - _bounded(ended.reserved_tokens) if ended.at else 0
    figures = [
        ended.at,
        beyond,
        len(windows),
        len(ended.cache),
        settings.IDEMPOTENCY_SECONDS * 1000,
        *(window.seconds * 1_000_000 for window in windows),
        *(max(each.ttl_seconds, 1) * 1000 for each in ended.cache),
    ]
    arguments = [
        ended.request_id,
        ended.body_hash,
        ended.stream_id,
        ended.outcome,
        doubles(figures),
        *(each.body for each in ended.cache),
        *ended.usage_rows,
    ]
    return bool(await scripts.settle.run(server, keys, arguments))


async def drop_key(server: Redis, ask: Ask, gone: Attach, scripts: Scripts = SCRIPTS) -> None:
    """Free an ask's idempotency key of a stream that cannot be read any more, unless it stands for another by now.

    Raises: as `settle`.
    """
    ended = settlement(ask, None, used_tokens=0, outcome="drop")
    await settle(server, structs.replace(ended, stream_id=gone.stream_id), scripts)


async def renew(server: Redis, leases: Iterable[Lease], lease_seconds: int, scripts: Scripts = SCRIPTS) -> int:
    """Prolong leases from now; return how many of the requests are still held. One round trip for each site.

    Raises:
        RedisAway: some may not be prolonged.
    """
    held = 0
    for site, group in groupby(sorted(leases, key=lambda lease: lease.site), key=lambda lease: lease.site):
        held += await _renew_site(server, site, list(group), lease_seconds, scripts)
    return held


async def open_requests(server: Redis, process: str) -> set[str]:
    """Return the requests of a process whose accounts are open. Raises `RedisAway`."""
    with redis_errors():
        found = await server.hkeys(open_key(process))
    return {each.decode() for each in cast(list[bytes], found)}


async def forget_open(server: Redis, process: str, request_ids: Collection[str]) -> None:
    """Take away open accounts of calls that were never made. Raises `RedisAway`."""
    if request_ids:
        with redis_errors():
            await server.hdel(open_key(process), *request_ids)


async def recall(server: Redis, site: str, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the cached answers of a site, None for those that are not known. Raises `RedisAway`."""
    prefix = site_prefix(site)
    if not keys:
        return []
    with redis_errors():
        found = await server.mget([prefix + b"cache:" + key for key in keys])
    return cast(list[bytes | None], found)


def open_key(process: str) -> bytes:
    """Return where the open accounts of a process stand: a hash of request id to row."""
    return b"nd:open:" + encode(process)


async def _undo(server: Redis, ask: Ask, scripts: Scripts) -> None:
    """End what may have begun. When that was nobody was told, but its lease says it."""
    ended = structs.replace(
        settlement(ask, None, used_tokens=0, outcome="drop"), at=-1000 * _lease_ms(ask.lease_seconds)
    )
    with suppress(RedisAway):
        await settle(server, ended, scripts)


#: Asyncio itself would let go of them.
_undone: set[asyncio.Task[None]] = set()


async def _renew_site(server: Redis, site: str, leases: list[Lease], lease_seconds: int, scripts: Scripts) -> int:
    prefix = site_prefix(site)
    keyed = [(key, lease.stream_id) for lease in leases if (key := _key_of(prefix, lease.idempotency_key))]
    keys = [prefix + b"running", *(key for key, _ in keyed)]
    ids = [lease.request_id for lease in leases]
    arguments = [_lease_ms(lease_seconds), len(ids), *ids, *(stream_id for _, stream_id in keyed)]
    return int(await scripts.renew.run(server, keys, arguments))


def _keys_to_admit(ask: Ask) -> list[bytes]:
    prefix = site_prefix(ask.site)
    # What is not asked for is named like this one, which the script reads as absent.
    running = prefix + b"running"
    return [
        running,
        running if ask.open_account is None else open_key(ask.process),
        running if ask.nonce is None else prefix + b"nonce:" + _digest(ask.nonce),
        _key_of(prefix, ask.idempotency_key) or running,
        running if ask.cache_key is None else prefix + b"cache:" + ask.cache_key,
        *(prefix + window.key for window in ask.windows),
    ]


def _arguments_to_admit(ask: Ask, tokens: int) -> list[Any]:
    if len(ask.windows) > MOST_WINDOWS:
        raise ValueError(f"{len(ask.windows)} windows are too many.")
    if ask.idempotency_key is not None and len(ask.body_hash) != 32:
        raise ValueError("The hash of the body must be of 32 bytes.")
    is_held = ask.concurrency is not None or any(window.unit == "tokens" for window in ask.windows)
    at_once = -1 if ask.concurrency is None else min(max(ask.concurrency, 0), LARGEST_LIMIT)
    figures = [_lease_ms(ask.lease_seconds), int(is_held), at_once]
    for window in ask.windows:
        figures += (window.needs(tokens), min(window.limit, LARGEST_LIMIT), window.seconds * 1_000_000)
    kept = settings.IDEMPOTENCY_SECONDS * 1000
    return [ask.request_id, ask.body_hash, ask.stream_id, ask.open_account or b"", doubles(figures), kept]


def _to_outcome(ask: Ask, tokens: int, answer: list[Any]) -> Outcome:
    match answer:
        case [0, packed]:
            at, *left = numbers(packed)
            return Admitted(left_of(ask.windows, left), int(at))
        case [1, packed]:
            index, wait, *left = numbers(packed)
            window = ask.windows[int(index)]
            return Limited(window, min(wait / 1e6, window.seconds), left_of(ask.windows, left), window.needs(tokens))
        case [2]:
            return TooManyAtOnce(ask.concurrency or 0)
        case [3]:
            return NonceUsed()
        case [4]:
            return KeyReused()
        case [5, stream_id]:
            return Attach(stream_id.decode())
        case [6, body]:
            return Hit(body)
    raise AssertionError(f"The script answered {answer!r}.")


def _of_tokens(windows: Iterable[Window]) -> list[Window]:
    return [window for window in windows if window.unit == "tokens"]


def _key_of(prefix: bytes, idempotency_key: str | None) -> bytes | None:
    return None if idempotency_key is None else prefix + b"key:" + _digest(encode(idempotency_key))


def _digest(text: bytes) -> bytes:
    """Return what stands for it in a key: of one length, whatever was sent."""
    return hashlib.sha256(text).digest()


def _lease_ms(seconds: int) -> int:
    return min(max(seconds, 1), LONGEST_LEASE_SECONDS) * 1000


def _bounded(tokens: int) -> int:
    return min(max(tokens, 0), LARGEST_TOKENS)

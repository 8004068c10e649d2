"""Admission and settlement: nonces, idempotency keys, cache, concurrency, reservations and open usage records."""

import asyncio
from typing import Any

import pytest
from pytest_django.fixtures import Settings
from redis.asyncio import Redis
from redis.crc import key_slot

from core import redis
from core.redis import RedisUnavailable
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from tenants.rate_limiting.admission import (
    get_cached_answers,
    release_idempotency_key,
    renew,
    settle,
)
from tenants.rate_limiting.scripts import SCRIPTS, Scripts
from tenants.rate_limiting.types import (
    AdmissionRequest,
    Admitted,
    AttachToStream,
    CacheEntry,
    CacheHit,
    IdempotencyKeyReused,
    NonceAlreadyUsed,
    OverConcurrencyLimit,
    OverRateLimit,
    to_lease,
    to_settlement,
)
from tenants.rate_limiting.windows import SlidingWindow
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock
from tests.platform.tenants.rate_limiting.requests import admit, make_request, request_limit, token_limit

OTHER_BODY = b"o" * 32


async def must_admit(server: Redis, request: AdmissionRequest, scripts: Scripts = SCRIPTS) -> Admitted:
    outcome = await admit(server, request, scripts)
    assert isinstance(outcome, Admitted)
    return outcome


async def keys_of(server: Redis, site: str) -> list[bytes]:
    return [key async for key in server.scan_iter(b"nd:{%b}:*" % site.encode(), count=1000)]


# Nonces


async def test_a_nonce_admits_one_request_in_five_minutes(server: Redis, shop: str) -> None:
    await must_admit(server, make_request(shop, nonce=b"n1"))

    assert await admit(server, make_request(shop, nonce=b"n1")) == NonceAlreadyUsed()
    await must_admit(server, make_request(shop, nonce=b"n2"))
    await must_admit(server, make_request(f"{shop}x", nonce=b"n1"))
    nonce = next(key for key in await keys_of(server, shop) if b":nonce:" in key)
    assert 295 < await server.ttl(nonce) <= 300


async def test_a_rejected_request_consumes_neither_its_nonce_nor_its_idempotency_key(server: Redis, shop: str) -> None:
    fields = {"nonce": b"n", "idempotency_key": "k", "open_usage_record": b"{}", "process": f"prc_{shop}"}
    assert isinstance(await admit(server, make_request(shop, request_limit(0), concurrency=5, **fields)), OverRateLimit)
    assert isinstance(
        await admit(server, make_request(shop, request_limit(9), concurrency=0, **fields)), OverConcurrencyLimit
    )

    assert await keys_of(server, shop) == []
    assert not await server.exists(open_calls_key(f"prc_{shop}"))
    await must_admit(server, make_request(shop, request_limit(9), concurrency=5, **fields))


async def test_a_replay_and_a_cache_hit_consume_the_nonce(server: Redis, shop: str) -> None:
    first = make_request(shop, idempotency_key="k")
    settlement = to_settlement(
        first, await must_admit(server, first), used_tokens=0, cache=(CacheEntry(b"c", b"answer", 60),)
    )
    await settle(server, settlement)

    assert await admit(server, make_request(shop, idempotency_key="k", nonce=b"n1")) == AttachToStream(first.stream_id)
    assert await admit(server, make_request(shop, cache_key=b"c", nonce=b"n2")) == CacheHit(b"answer")
    for nonce in (b"n1", b"n2"):
        assert await admit(server, make_request(shop, cache_key=b"c", nonce=nonce)) == NonceAlreadyUsed()


# Idempotency


async def test_a_repeated_request_attaches_to_the_stream_while_it_runs_and_afterwards(
    server: Redis, settings: Settings, shop: str
) -> None:
    settings.IDEMPOTENCY_TTL_SECONDS = 5000
    first = make_request(shop, idempotency_key="k", lease_seconds=40)
    admitted = await must_admit(server, first)
    [key] = await keys_of(server, shop)
    assert 35 < await server.ttl(key) <= 40

    assert await admit(server, make_request(shop, request_limit(0), idempotency_key="k")) == AttachToStream(
        first.stream_id
    )
    await settle(server, to_settlement(first, admitted, used_tokens=0))
    assert await admit(server, make_request(shop, idempotency_key="k")) == AttachToStream(first.stream_id)
    assert 4990 < await server.ttl(key) <= 5000


async def test_an_idempotency_key_belongs_to_one_body_of_one_site(server: Redis, shop: str) -> None:
    await must_admit(server, make_request(shop, idempotency_key="k"))

    assert await admit(server, make_request(shop, idempotency_key="k", body_hash=OTHER_BODY)) == IdempotencyKeyReused()
    await must_admit(server, make_request(shop, idempotency_key="k2", body_hash=OTHER_BODY))
    await must_admit(server, make_request(f"{shop}x", idempotency_key="k", body_hash=OTHER_BODY))


async def test_a_failed_request_may_be_retried_with_its_key(server: Redis, shop: str) -> None:
    first = make_request(shop, idempotency_key="k")
    await settle(
        server, to_settlement(first, await must_admit(server, first), used_tokens=0, idempotency_key_action="drop")
    )

    await must_admit(server, make_request(shop, idempotency_key="k", body_hash=OTHER_BODY))


async def test_one_of_fifty_concurrent_requests_with_one_key_is_admitted(server: Redis, shop: str) -> None:
    pending = [make_request(shop, request_limit(1), idempotency_key="k", concurrency=1) for _ in range(50)]

    outcomes = await asyncio.gather(*(admit(server, each) for each in pending))

    admitted = [each for each, outcome in zip(pending, outcomes, strict=True) if isinstance(outcome, Admitted)]
    assert len(admitted) == 1
    assert outcomes.count(AttachToStream(admitted[0].stream_id)) == 49


async def test_a_request_whose_lease_expired_does_not_touch_its_successors_key(server: Redis, shop: str) -> None:
    frozen = make_request(shop, idempotency_key="k")
    admitted = await must_admit(server, frozen)
    [key] = await keys_of(server, shop)
    await server.delete(key)  # as when its lease expires
    successor = make_request(shop, idempotency_key="k")
    await must_admit(server, successor)

    for action in ("keep", "drop"):
        await settle(server, to_settlement(frozen, admitted, used_tokens=0, idempotency_key_action=action))
        assert await admit(server, make_request(shop, idempotency_key="k")) == AttachToStream(successor.stream_id)
    assert await server.ttl(key) <= successor.lease_seconds


async def test_a_key_is_released_only_from_the_stream_that_is_gone(server: Redis, shop: str) -> None:
    first, second = (make_request(shop, idempotency_key="k", concurrency=9) for _ in range(2))
    await must_admit(server, first)
    attached = await admit(server, second)
    assert isinstance(attached, AttachToStream)

    await release_idempotency_key(server, second, attached)
    await must_admit(server, second)

    # A third request that found the first stream gone at the same time.
    third = make_request(shop, idempotency_key="k")
    await release_idempotency_key(server, third, attached)
    assert await admit(server, third) == AttachToStream(second.stream_id)


# Cache


async def test_responses_are_cached_by_site_and_key_for_their_ttl(server: Redis, shop: str) -> None:
    body = bytes(range(256)) * 40
    first = make_request(shop, request_limit(1), cache_key=b"\x00c")
    entries = (CacheEntry(b"\x00c", body, 100), CacheEntry(b"d", b"", 200))
    await settle(server, to_settlement(first, await must_admit(server, first), used_tokens=0, cache=entries))

    assert await admit(server, make_request(shop, request_limit(1), cache_key=b"\x00c")) == CacheHit(body)
    assert await get_cached_answers(server, shop, [b"d", b"\x00c", b"e"]) == [b"", body, None]
    assert await get_cached_answers(server, f"{shop}x", [b"d"]) == [None]
    assert await get_cached_answers(server, shop, []) == []
    assert 95 < await server.ttl(b"nd:{%b}:cache:\x00c" % shop.encode()) <= 100
    assert isinstance(await admit(server, make_request(shop, request_limit(1), cache_key=b"e")), OverRateLimit)


# Concurrency


async def test_a_settled_request_frees_its_slot(server: Redis, shop: str) -> None:
    running = [make_request(shop, concurrency=2) for _ in range(2)]
    admitted = [await must_admit(server, each) for each in running]
    assert await admit(server, make_request(shop, concurrency=2)) == OverConcurrencyLimit(2)

    assert await settle(server, to_settlement(running[0], admitted[0], used_tokens=0))
    await must_admit(server, make_request(shop, concurrency=2))
    assert await admit(server, make_request(shop, concurrency=2)) == OverConcurrencyLimit(2)


async def test_settling_twice_frees_one_slot(server: Redis, shop: str) -> None:
    running = [make_request(shop, concurrency=2) for _ in range(2)]
    settlement = to_settlement(running[0], await must_admit(server, running[0]), used_tokens=0)
    await must_admit(server, running[1])

    assert [await settle(server, settlement) for _ in range(2)] == [True, False]
    await must_admit(server, make_request(shop, concurrency=2))
    assert await admit(server, make_request(shop, concurrency=2)) == OverConcurrencyLimit(2)


async def test_a_slot_is_freed_when_its_lease_expires(server: Redis, clock: Clock, timed: Scripts, shop: str) -> None:
    kept, lost = (make_request(shop, concurrency=2, lease_seconds=30) for _ in range(2))
    for each in (kept, lost):
        await must_admit(server, each, timed)

    await clock.set(20 * SECOND)
    assert await renew(server, [to_lease(kept)], 30, timed) == 1
    await clock.set(30 * SECOND - 1)
    assert await admit(server, make_request(shop, concurrency=2), timed) == OverConcurrencyLimit(2)
    await clock.set(30 * SECOND)
    await must_admit(server, make_request(shop, concurrency=2), timed)
    assert await admit(server, make_request(shop, concurrency=2), timed) == OverConcurrencyLimit(2)
    # An expired lease stays expired: its slot may have been given to another request.
    assert await renew(server, [to_lease(kept), to_lease(lost)], 30, timed) == 1
    await clock.set(60 * SECOND)
    assert await renew(server, [to_lease(kept)], 30, timed) == 0


async def test_leases_of_many_sites_are_renewed_with_their_keys(server: Redis, shop: str) -> None:
    sites = [shop, f"{shop}x"]
    running = [
        make_request(site, concurrency=9, lease_seconds=10, idempotency_key=key)
        for site in sites
        for key in ("a", None, "b")
    ]
    for each in running:
        await must_admit(server, each)

    assert await renew(server, [to_lease(each) for each in running], 500) == 6
    for site in sites:
        named = [key for key in await keys_of(server, site) if b":key:" in key]
        assert len(named) == 2
        assert all([490 < await server.ttl(key) <= 500 for key in named])
    assert await renew(server, [], 500) == 0


async def test_a_late_renewal_does_not_shorten_the_ttl_of_a_settled_key(server: Redis, shop: str) -> None:
    first = make_request(shop, idempotency_key="k")
    await settle(server, to_settlement(first, await must_admit(server, first), used_tokens=0))

    assert await renew(server, [to_lease(first)], 30) == 0
    [key] = await keys_of(server, shop)
    assert await server.ttl(key) > 80_000


async def test_a_request_canceled_during_admission_holds_nothing(server: Redis, shop: str) -> None:
    process = f"prc_{shop}"
    fields = {"concurrency": 100, "open_usage_record": b"{}", "process": process, "lease_seconds": 600}
    stays = make_request(shop, **fields)
    await must_admit(server, stays)
    pending = [make_request(shop, idempotency_key=f"k{n}", **fields) for n in range(40)]
    tasks = [asyncio.create_task(admit(server, each)) for each in pending]

    for number, task in enumerate(tasks):
        if number % 4 == 0:
            await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    admitted = [each for each, outcome in zip(pending, outcomes, strict=True) if isinstance(outcome, Admitted)]
    assert len(admitted) < len(pending)
    held = {each.request_id.encode() for each in (stays, *admitted)}
    running = b"nd:{%b}:running" % shop.encode()
    async with asyncio.timeout(10):
        while {*await server.hkeys(open_calls_key(process)), *await server.zrange(running, 0, -1)} != held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len([key for key in await keys_of(server, shop) if b":key:" in key]) == len(admitted)
    await server.delete(open_calls_key(process))


async def test_a_request_canceled_during_admission_releases_its_tokens(server: Redis, shop: str) -> None:
    window = token_limit(1000)
    # Loads the script into the server, or else no request would be admitted before it is canceled.
    await must_admit(server, make_request(f"{shop}_2"))
    for n in range(40):
        task = asyncio.create_task(admit(server, make_request(shop, window, tokens=100, request_id=f"req_gone_{n}")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(10):
        while await remaining(server, shop, window) != 1000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Reservations


async def remaining(server: Redis, site: str, window: SlidingWindow) -> int:
    outcome = await admit(server, make_request(site, window, tokens=10**9))
    assert isinstance(outcome, OverRateLimit)
    return outcome.quotas[0].remaining


@pytest.mark.parametrize(("used", "left"), [(0, 100), (1, 99), (60, 40), (130, 0)])
async def test_settling_corrects_the_reservation_once(server: Redis, shop: str, used: int, left: int) -> None:
    window, counted = token_limit(100), request_limit(5)
    request = make_request(shop, window, counted, tokens=60)
    settlement = to_settlement(request, await must_admit(server, request), used_tokens=used)

    for _ in range(3):
        await settle(server, settlement)
        assert await remaining(server, shop, window) == left
    # The request counts as one, whatever it used.
    assert (await must_admit(server, make_request(shop, counted))).quotas[0].remaining == 3


async def test_an_expired_reservation_is_not_released(server: Redis, clock: Clock, timed: Scripts, shop: str) -> None:
    window = token_limit(100)
    early, late = (
        make_request(shop, window, tokens=60, lease_seconds=600),
        make_request(shop, window, tokens=90),
    )
    admitted = await must_admit(server, early, timed)
    await clock.set(60 * SECOND)
    await must_admit(server, late, timed)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    outcome = await admit(server, make_request(shop, window, tokens=11), timed)
    assert isinstance(outcome, OverRateLimit)
    assert outcome.quotas[0].remaining == 10


async def test_a_request_that_was_never_admitted_can_be_settled(server: Redis, shop: str) -> None:
    window = token_limit(100)
    await must_admit(server, make_request(shop, window, tokens=60))

    assert not await settle(server, to_settlement(make_request(shop, window, tokens=60), None, used_tokens=0))
    assert await remaining(server, shop, window) == 40


# Usage records


async def test_a_usage_record_is_open_until_settling_appends_the_final_ones(server: Redis, shop: str) -> None:
    await server.delete(USAGE_RECORDS_KEY)
    process = f"prc_{shop}"
    first, second = (make_request(shop, process=process, open_usage_record=b'{"n":%d}' % n) for n in range(2))
    admitted = [await must_admit(server, each) for each in (first, second)]
    ids = [each.request_id.encode() for each in (first, second)]
    assert await server.hgetall(open_calls_key(process)) == {ids[0]: b'{"n":0}', ids[1]: b'{"n":1}'}

    await settle(server, to_settlement(first, admitted[0], used_tokens=0, usage_records=[b"row 1", b"row 2"]))

    # The record that remains is closed by metering if the process dies.
    assert await server.hgetall(open_calls_key(process)) == {ids[1]: b'{"n":1}'}
    assert await server.lrange(USAGE_RECORDS_KEY, 0, -1) == [b"row 1", b"row 2"]
    assert min(await server.ttl(USAGE_RECORDS_KEY), await server.ttl(open_calls_key(process))) > 600_000
    await server.delete(USAGE_RECORDS_KEY, open_calls_key(process))


# Everything


def busy(site: str, **fields: Any) -> AdmissionRequest:
    windows = (request_limit(50), token_limit(10**6, 3600), request_limit(9, name="model:gpt"))
    request = {"tokens": 9, "concurrency": 9, "nonce": b"n", "idempotency_key": "k", "cache_key": b"c"}
    return make_request(site, *windows, **{**request, **fields})


async def test_every_key_of_a_site_has_a_ttl_and_the_same_cluster_slot(server: Redis, shop: str) -> None:
    first = busy(shop)
    settlement = to_settlement(
        first, await must_admit(server, first), used_tokens=3, cache=(CacheEntry(b"c", b"x", 9),)
    )
    before = await keys_of(server, shop)
    await renew(server, [to_lease(first)], 60)
    await must_admit(server, make_request(shop, concurrency=5))
    await settle(server, settlement)

    keys = {*before, *await keys_of(server, shop)}
    assert len(keys) == 7
    assert all([await server.ttl(key) > 0 for key in keys if await server.exists(key)])
    assert len({key_slot(key) for key in keys}) == 1


HOSTILE = ["", "}", "{x}", "a:b:c", "nd:{y}:running", "\n\r\t\x00", "'\"; return 1 --", "𝔘", "\ud800", "x" * 20_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_breaks_a_script_or_reaches_keys_of_another_site(server: Redis, shop: str, text: str) -> None:
    window = request_limit(1, name=text)
    request = make_request(shop, window, idempotency_key=text, nonce=text.encode("utf-8", "replace"), concurrency=1)
    admitted = await must_admit(server, request)
    assert await admit(server, make_request(shop, idempotency_key=text)) == AttachToStream(request.stream_id)
    assert isinstance(await admit(server, make_request(shop, window)), OverRateLimit)
    await settle(server, to_settlement(request, admitted, used_tokens=0))

    assert all(key.startswith(b"nd:{%b}:" % shop.encode()) for key in await keys_of(server, shop))
    await must_admit(server, make_request(shop, request_limit(1), idempotency_key=f"{text}.", concurrency=1))


@pytest.mark.parametrize("number", [-(10**30), -1, 0, 2**31, 2**53 + 1, 2**63, 10**30])
async def test_no_number_breaks_a_script(server: Redis, shop: str, number: int) -> None:
    limit = max(number, 0)
    request = make_request(
        shop, token_limit(10**18), token_limit(limit), tokens=number, concurrency=limit, lease_seconds=number
    )
    outcome = await admit(server, request)

    assert isinstance(outcome, Admitted | OverConcurrencyLimit)
    if isinstance(outcome, Admitted):
        settlement = to_settlement(request, outcome, used_tokens=number * 3, cache=(CacheEntry(b"c", b"x", 1),))
        assert await settle(server, settlement)
        assert (await must_admit(server, make_request(shop, token_limit(10**18)))).quotas[0].remaining <= 10**15


@pytest.mark.parametrize("site", ["", "a}b", "a b", "x" * 64, "bäckerei"])
async def test_an_invalid_site_id_raises(server: Redis, site: str) -> None:
    with pytest.raises(ValueError, match="Not a site id"):
        await admit(server, make_request(site))


@pytest.mark.parametrize(("limit", "seconds"), [(-1, 60), (1, 0), (1, 32 * 86_400)])
def test_an_invalid_window_raises(limit: int, seconds: int) -> None:
    with pytest.raises(ValueError, match="Not a window"):
        request_limit(limit, seconds)


async def test_without_redis_admission_raises() -> None:
    unavailable = redis.client("redis://127.0.0.1:1/0")
    try:
        with pytest.raises(RedisUnavailable):
            await admit(unavailable, busy("bakery"))
    finally:
        await redis.close_clients()

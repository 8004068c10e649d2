"""Nonce, idempotency, cache, concurrency, accounts: what lets a request in, and what its end leaves behind."""

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
    admit,
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
from tests.platform.tenants.rate_limiting.asking import ask, requests, tokens
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock

OTHER_BODY = b"o" * 32


async def let_in(server: Redis, wanted: AdmissionRequest, scripts: Scripts = SCRIPTS) -> Admitted:
    outcome = await admit(server, wanted, scripts)
    assert isinstance(outcome, Admitted)
    return outcome


async def keys_of(server: Redis, site: str) -> list[bytes]:
    return [key async for key in server.scan_iter(b"nd:{%b}:*" % site.encode(), count=1000)]


# Nonces


async def test_a_nonce_lets_one_request_in_for_five_minutes(server: Redis, shop: str) -> None:
    await let_in(server, ask(shop, nonce=b"n1"))

    assert await admit(server, ask(shop, nonce=b"n1")) == NonceAlreadyUsed()
    await let_in(server, ask(shop, nonce=b"n2"))
    await let_in(server, ask(f"{shop}x", nonce=b"n1"))
    nonce = next(key for key in await keys_of(server, shop) if b":nonce:" in key)
    assert 295 < await server.ttl(nonce) <= 300


async def test_what_is_refused_leaves_its_nonce_and_its_key_unused(server: Redis, shop: str) -> None:
    wanted = {"nonce": b"n", "idempotency_key": "k", "open_usage_record": b"{}", "process": f"prc_{shop}"}
    assert isinstance(await admit(server, ask(shop, requests(0), concurrency=5, **wanted)), OverRateLimit)
    assert isinstance(await admit(server, ask(shop, requests(9), concurrency=0, **wanted)), OverConcurrencyLimit)

    assert await keys_of(server, shop) == []
    assert not await server.exists(open_calls_key(f"prc_{shop}"))
    await let_in(server, ask(shop, requests(9), concurrency=5, **wanted))


async def test_an_answer_from_what_is_known_uses_the_nonce_up(server: Redis, shop: str) -> None:
    first = ask(shop, idempotency_key="k")
    ended = to_settlement(first, await let_in(server, first), used_tokens=0, cache=(CacheEntry(b"c", b"answer", 60),))
    await settle(server, ended)

    assert await admit(server, ask(shop, idempotency_key="k", nonce=b"n1")) == AttachToStream(first.stream_id)
    assert await admit(server, ask(shop, cache_key=b"c", nonce=b"n2")) == CacheHit(b"answer")
    for nonce in (b"n1", b"n2"):
        assert await admit(server, ask(shop, cache_key=b"c", nonce=nonce)) == NonceAlreadyUsed()


# Idempotency


async def test_the_same_again_is_attached_while_it_runs_and_afterwards(
    server: Redis, settings: Settings, shop: str
) -> None:
    settings.IDEMPOTENCY_TTL_SECONDS = 5000
    first = ask(shop, idempotency_key="k", lease_seconds=40)
    admitted = await let_in(server, first)
    [key] = await keys_of(server, shop)
    assert 35 < await server.ttl(key) <= 40

    assert await admit(server, ask(shop, requests(0), idempotency_key="k")) == AttachToStream(first.stream_id)
    await settle(server, to_settlement(first, admitted, used_tokens=0))
    assert await admit(server, ask(shop, idempotency_key="k")) == AttachToStream(first.stream_id)
    assert 4990 < await server.ttl(key) <= 5000


async def test_a_key_stands_for_one_body_of_one_site(server: Redis, shop: str) -> None:
    await let_in(server, ask(shop, idempotency_key="k"))

    assert await admit(server, ask(shop, idempotency_key="k", body_hash=OTHER_BODY)) == IdempotencyKeyReused()
    await let_in(server, ask(shop, idempotency_key="k2", body_hash=OTHER_BODY))
    await let_in(server, ask(f"{shop}x", idempotency_key="k", body_hash=OTHER_BODY))


async def test_a_failed_request_may_be_tried_again_with_its_key(server: Redis, shop: str) -> None:
    first = ask(shop, idempotency_key="k")
    await settle(server, to_settlement(first, await let_in(server, first), used_tokens=0, outcome="drop"))

    await let_in(server, ask(shop, idempotency_key="k", body_hash=OTHER_BODY))


async def test_of_fifty_at_once_with_one_key_one_begins(server: Redis, shop: str) -> None:
    asks = [ask(shop, requests(1), idempotency_key="k", concurrency=1) for _ in range(50)]

    outcomes = await asyncio.gather(*(admit(server, each) for each in asks))

    begun = [each for each, outcome in zip(asks, outcomes, strict=True) if isinstance(outcome, Admitted)]
    assert len(begun) == 1
    assert outcomes.count(AttachToStream(begun[0].stream_id)) == 49


async def test_whoever_was_taken_for_dead_does_not_touch_its_successors_key(server: Redis, shop: str) -> None:
    frozen = ask(shop, idempotency_key="k")
    admitted = await let_in(server, frozen)
    [key] = await keys_of(server, shop)
    await server.delete(key)  # as when its lease lapses
    successor = ask(shop, idempotency_key="k")
    await let_in(server, successor)

    for outcome in ("keep", "drop"):
        await settle(server, to_settlement(frozen, admitted, used_tokens=0, outcome=outcome))
        assert await admit(server, ask(shop, idempotency_key="k")) == AttachToStream(successor.stream_id)
    assert await server.ttl(key) <= successor.lease_seconds


async def test_a_key_is_freed_of_a_stream_that_is_gone_and_of_no_other(server: Redis, shop: str) -> None:
    first, second = (ask(shop, idempotency_key="k", concurrency=9) for _ in range(2))
    await let_in(server, first)
    gone = await admit(server, second)
    assert isinstance(gone, AttachToStream)

    await release_idempotency_key(server, second, gone)
    await let_in(server, second)

    # Somebody else, who found the first gone at the same time.
    third = ask(shop, idempotency_key="k")
    await release_idempotency_key(server, third, gone)
    assert await admit(server, third) == AttachToStream(second.stream_id)


# Cache


async def test_answers_are_kept_by_site_and_key_for_their_time(server: Redis, shop: str) -> None:
    body = bytes(range(256)) * 40
    first = ask(shop, requests(1), cache_key=b"\x00c")
    entries = (CacheEntry(b"\x00c", body, 100), CacheEntry(b"d", b"", 200))
    await settle(server, to_settlement(first, await let_in(server, first), used_tokens=0, cache=entries))

    assert await admit(server, ask(shop, requests(1), cache_key=b"\x00c")) == CacheHit(body)
    assert await get_cached_answers(server, shop, [b"d", b"\x00c", b"e"]) == [b"", body, None]
    assert await get_cached_answers(server, f"{shop}x", [b"d"]) == [None]
    assert await get_cached_answers(server, shop, []) == []
    assert 95 < await server.ttl(b"nd:{%b}:cache:\x00c" % shop.encode()) <= 100
    assert isinstance(await admit(server, ask(shop, requests(1), cache_key=b"e")), OverRateLimit)


# Concurrency


async def test_so_many_run_at_once_and_an_end_makes_room(server: Redis, shop: str) -> None:
    running = [ask(shop, concurrency=2) for _ in range(2)]
    admitted = [await let_in(server, each) for each in running]
    assert await admit(server, ask(shop, concurrency=2)) == OverConcurrencyLimit(2)

    assert await settle(server, to_settlement(running[0], admitted[0], used_tokens=0))
    await let_in(server, ask(shop, concurrency=2))
    assert await admit(server, ask(shop, concurrency=2)) == OverConcurrencyLimit(2)


async def test_ending_twice_frees_one_place(server: Redis, shop: str) -> None:
    running = [ask(shop, concurrency=2) for _ in range(2)]
    ended = to_settlement(running[0], await let_in(server, running[0]), used_tokens=0)
    await let_in(server, running[1])

    assert [await settle(server, ended) for _ in range(2)] == [True, False]
    await let_in(server, ask(shop, concurrency=2))
    assert await admit(server, ask(shop, concurrency=2)) == OverConcurrencyLimit(2)


async def test_a_place_that_nobody_renews_frees_itself(server: Redis, clock: Clock, timed: Scripts, shop: str) -> None:
    kept, lost = (ask(shop, concurrency=2, lease_seconds=30) for _ in range(2))
    for each in (kept, lost):
        await let_in(server, each, timed)

    await clock.set(20 * SECOND)
    assert await renew(server, [to_lease(kept)], 30, timed) == 1
    await clock.set(30 * SECOND - 1)
    assert await admit(server, ask(shop, concurrency=2), timed) == OverConcurrencyLimit(2)
    await clock.set(30 * SECOND)
    await let_in(server, ask(shop, concurrency=2), timed)
    assert await admit(server, ask(shop, concurrency=2), timed) == OverConcurrencyLimit(2)
    # What lapsed stays so: its place has been given away, or may be at any time.
    assert await renew(server, [to_lease(kept), to_lease(lost)], 30, timed) == 1
    await clock.set(60 * SECOND)
    assert await renew(server, [to_lease(kept)], 30, timed) == 0


async def test_leases_of_many_sites_are_renewed_with_their_keys(server: Redis, shop: str) -> None:
    sites = [shop, f"{shop}x"]
    running = [
        ask(site, concurrency=9, lease_seconds=10, idempotency_key=key) for site in sites for key in ("a", None, "b")
    ]
    for each in running:
        await let_in(server, each)

    assert await renew(server, [to_lease(each) for each in running], 500) == 6
    for site in sites:
        named = [key for key in await keys_of(server, site) if b":key:" in key]
        assert len(named) == 2
        assert all([490 < await server.ttl(key) <= 500 for key in named])
    assert await renew(server, [], 500) == 0


async def test_a_late_renewal_does_not_shorten_how_long_an_ended_request_is_known(server: Redis, shop: str) -> None:
    first = ask(shop, idempotency_key="k")
    await settle(server, to_settlement(first, await let_in(server, first), used_tokens=0))

    assert await renew(server, [to_lease(first)], 30) == 0
    [key] = await keys_of(server, shop)
    assert await server.ttl(key) > 80_000


async def test_who_goes_away_while_being_let_in_holds_nothing(server: Redis, shop: str) -> None:
    process = f"prc_{shop}"
    fields = {"concurrency": 100, "open_usage_record": b"{}", "process": process, "lease_seconds": 600}
    stays = ask(shop, **fields)
    await let_in(server, stays)
    asks = [ask(shop, idempotency_key=f"k{n}", **fields) for n in range(40)]
    asking = [asyncio.create_task(admit(server, each)) for each in asks]

    for number, task in enumerate(asking):
        if number % 4 == 0:
            await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    answered = [each for each, outcome in zip(asks, outcomes, strict=True) if isinstance(outcome, Admitted)]
    assert len(answered) < len(asks)
    held = {each.request_id.encode() for each in (stays, *answered)}
    running = b"nd:{%b}:running" % shop.encode()
    async with asyncio.timeout(10):
        while {*await server.hkeys(open_calls_key(process)), *await server.zrange(running, 0, -1)} != held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len([key for key in await keys_of(server, shop) if b":key:" in key]) == len(answered)
    await server.delete(open_calls_key(process))


async def test_who_goes_away_while_being_let_in_has_its_tokens_given_back(server: Redis, shop: str) -> None:
    window = tokens(1000)
    # The script is known to the server, or else nobody would be let in.
    await let_in(server, ask(f"{shop}_2"))
    for n in range(40):
        asking = asyncio.create_task(admit(server, ask(shop, window, tokens=100, request_id=f"req_gone_{n}")))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async with asyncio.timeout(10):
        while await remaining(server, shop, window) != 1000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Reservations


async def remaining(server: Redis, site: str, window: SlidingWindow) -> int:
    outcome = await admit(server, ask(site, window, tokens=10**9))
    assert isinstance(outcome, OverRateLimit)
    return outcome.quotas[0].remaining


@pytest.mark.parametrize(("used", "left"), [(0, 100), (1, 99), (60, 40), (130, 0)])
async def test_the_end_says_what_was_used_of_the_reservation_once(
    server: Redis, shop: str, used: int, left: int
) -> None:
    window, counted = tokens(100), requests(5)
    wanted = ask(shop, window, counted, tokens=60)
    ended = to_settlement(wanted, await let_in(server, wanted), used_tokens=used)

    for _ in range(3):
        await settle(server, ended)
        assert await remaining(server, shop, window) == left
    # The request was made, whatever it used.
    assert (await let_in(server, ask(shop, counted))).quotas[0].remaining == 3


async def test_what_no_longer_counts_is_not_given_back(server: Redis, clock: Clock, timed: Scripts, shop: str) -> None:
    window = tokens(100)
    early, late = ask(shop, window, tokens=60, lease_seconds=600), ask(shop, window, tokens=90)
    admitted = await let_in(server, early, timed)
    await clock.set(60 * SECOND)
    await let_in(server, late, timed)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    outcome = await admit(server, ask(shop, window, tokens=11), timed)
    assert isinstance(outcome, OverRateLimit)
    assert outcome.quotas[0].remaining == 10


async def test_a_request_that_redis_never_saw_can_be_settled(server: Redis, shop: str) -> None:
    window = tokens(100)
    await let_in(server, ask(shop, window, tokens=60))

    assert not await settle(server, to_settlement(ask(shop, window, tokens=60), None, used_tokens=0))
    assert await remaining(server, shop, window) == 40


# Accounts


async def test_an_account_is_open_until_the_end_which_hands_over_the_rows(server: Redis, shop: str) -> None:
    await server.delete(USAGE_RECORDS_KEY)
    process = f"prc_{shop}"
    first, second = (ask(shop, process=process, open_usage_record=b'{"n":%d}' % n) for n in range(2))
    admitted = [await let_in(server, each) for each in (first, second)]
    ids = [each.request_id.encode() for each in (first, second)]
    assert await server.hgetall(open_calls_key(process)) == {ids[0]: b'{"n":0}', ids[1]: b'{"n":1}'}

    await settle(server, to_settlement(first, admitted[0], used_tokens=0, usage_rows=[b"row 1", b"row 2"]))

    # What is still there when its process is gone is found by whoever looks after the dead.
    assert await server.hgetall(open_calls_key(process)) == {ids[1]: b'{"n":1}'}
    assert await server.lrange(USAGE_RECORDS_KEY, 0, -1) == [b"row 1", b"row 2"]
    assert min(await server.ttl(USAGE_RECORDS_KEY), await server.ttl(open_calls_key(process))) > 600_000
    await server.delete(USAGE_RECORDS_KEY, open_calls_key(process))


# Everything


def busy(site: str, **fields: Any) -> AdmissionRequest:
    windows = (requests(50), tokens(10**6, 3600), requests(9, name="model:gpt"))
    wanted = {"tokens": 9, "concurrency": 9, "nonce": b"n", "idempotency_key": "k", "cache_key": b"c"}
    return ask(site, *windows, **{**wanted, **fields})


async def test_every_key_of_a_site_lapses_and_shares_a_slot(server: Redis, shop: str) -> None:
    first = busy(shop)
    ended = to_settlement(first, await let_in(server, first), used_tokens=3, cache=(CacheEntry(b"c", b"x", 9),))
    before = await keys_of(server, shop)
    await renew(server, [to_lease(first)], 60)
    await let_in(server, ask(shop, concurrency=5))
    await settle(server, ended)

    keys = {*before, *await keys_of(server, shop)}
    assert len(keys) == 7
    assert all([await server.ttl(key) > 0 for key in keys if await server.exists(key)])
    assert len({key_slot(key) for key in keys}) == 1


HOSTILE = ["", "}", "{x}", "a:b:c", "nd:{y}:running", "\n\r\t\x00", "'\"; return 1 --", "𝔘", "\ud800", "x" * 20_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_breaks_a_script_or_reaches_what_is_anothers(server: Redis, shop: str, text: str) -> None:
    window = requests(1, name=text)
    wanted = ask(shop, window, idempotency_key=text, nonce=text.encode("utf-8", "replace"), concurrency=1)
    admitted = await let_in(server, wanted)
    assert await admit(server, ask(shop, idempotency_key=text)) == AttachToStream(wanted.stream_id)
    assert isinstance(await admit(server, ask(shop, window)), OverRateLimit)
    await settle(server, to_settlement(wanted, admitted, used_tokens=0))

    assert all(key.startswith(b"nd:{%b}:" % shop.encode()) for key in await keys_of(server, shop))
    await let_in(server, ask(shop, requests(1), idempotency_key=f"{text}.", concurrency=1))


@pytest.mark.parametrize("number", [-(10**30), -1, 0, 2**31, 2**53 + 1, 2**63, 10**30])
async def test_no_number_breaks_a_script(server: Redis, shop: str, number: int) -> None:
    limit = max(number, 0)
    wanted = ask(shop, tokens(10**18), tokens(limit), tokens=number, concurrency=limit, lease_seconds=number)
    outcome = await admit(server, wanted)

    assert isinstance(outcome, Admitted | OverConcurrencyLimit)
    if isinstance(outcome, Admitted):
        ended = to_settlement(wanted, outcome, used_tokens=number * 3, cache=(CacheEntry(b"c", b"x", 1),))
        assert await settle(server, ended)
        assert (await let_in(server, ask(shop, tokens(10**18)))).quotas[0].remaining <= 10**15


@pytest.mark.parametrize("site", ["", "a}b", "a b", "x" * 64, "bäckerei"])
async def test_what_is_no_name_of_a_site_is_refused(server: Redis, site: str) -> None:
    with pytest.raises(ValueError, match="No site"):
        await admit(server, ask(site))


@pytest.mark.parametrize(("limit", "seconds"), [(-1, 60), (1, 0), (1, 32 * 86_400)])
def test_what_is_no_window_is_refused(limit: int, seconds: int) -> None:
    with pytest.raises(ValueError, match="No window"):
        requests(limit, seconds)


async def test_without_redis_nobody_is_told_that_they_were_let_in() -> None:
    away = redis.client("redis://127.0.0.1:1/0")
    try:
        with pytest.raises(RedisUnavailable):
            await admit(away, busy("bakery"))
    finally:
        await redis.close_clients()

"""Sliding windows in Redis compared with a reference model: never over the limit, never rejected without a reason."""

import random
from typing import cast

import pytest
from redis.asyncio import Redis

from tenants.rate_limiting.admission import settle
from tenants.rate_limiting.scripts import Scripts
from tenants.rate_limiting.types import AdmissionRequest, Admitted, OverRateLimit, to_settlement
from tenants.rate_limiting.windows import SlidingWindow, site_key_prefix
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock
from tests.platform.tenants.rate_limiting.model import PlainWindow, WindowEntry
from tests.platform.tenants.rate_limiting.requests import admit, make_request, request_limit, token_limit

#: The largest size of a window that `admission` documents.
LARGEST_WINDOW_BYTES = 2_072


async def state_of(server: Redis, site: str, window: SlidingWindow) -> bytes | None:
    return cast(bytes | None, await server.get(site_key_prefix(site) + window.key))


@pytest.mark.parametrize("seed", range(12))
async def test_random_requests_are_admitted_exactly_as_by_the_reference_model(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    windows = (
        request_limit(chance.randint(1, 60)),
        request_limit(chance.randint(1, 60), 7),
        token_limit(500),
        token_limit(900, 200),
    )
    plain = [PlainWindow(window.limit, window.seconds * SECOND) for window in windows]

    now = 0
    for _ in range(120):
        now += round(chance.choice((0, 1, chance.expovariate(2) * SECOND, chance.expovariate(0.1) * SECOND)))
        await clock.set(now)
        needed_tokens = chance.randint(0, 120)
        needed = [window.units_for(needed_tokens) for window in windows]
        outcome = await admit(server, make_request(shop, *windows, tokens=needed_tokens), timed)
        if all(each.fits(now, number) for each, number in zip(plain, needed, strict=True)):
            assert isinstance(outcome, Admitted)
            for each, number in zip(plain, needed, strict=True):
                each.record(now, number)
        else:
            waits = [
                each.wait(now, number) if not each.fits(now, number) else 0
                for each, number in zip(plain, needed, strict=True)
            ]
            assert isinstance(outcome, OverRateLimit)
            assert outcome.retry_after_seconds == max(waits) / SECOND
            assert outcome.window == windows[waits.index(max(waits))]
        assert [quota.remaining for quota in outcome.quotas] == [each.limit - each.held(now) for each in plain]

    assert all(each.peak() <= each.limit for each in plain)


@pytest.mark.parametrize("seed", range(4))
async def test_beyond_64_entries_a_window_frees_room_at_most_a_64th_late_and_never_early(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    window = request_limit(chance.randint(65, 150))
    plain = PlainWindow(window.limit, window.seconds * SECOND)

    now = 0
    for _ in range(300):
        now += round(chance.expovariate(chance.choice((1, 5, 20))) * SECOND)
        await clock.set(now)
        if isinstance(await admit(server, make_request(shop, window), timed), Admitted):
            assert plain.fits(now, 1)
            plain.record(now, 1)
        else:
            assert not plain.fits(now, 1, lateness=window.seconds * SECOND // 64)

    assert plain.peak() == window.limit


async def test_retry_after_is_the_first_moment_at_which_the_request_fits(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    windows = (request_limit(3), token_limit(100, 45))
    for second, needed_tokens in ((0, 30), (10, 60), (20, 5)):
        await clock.set(round(second * SECOND))
        assert isinstance(await admit(server, make_request(shop, *windows, tokens=needed_tokens), timed), Admitted)

    await clock.set(21_500_000)
    refused = await admit(server, make_request(shop, *windows, tokens=50), timed)
    assert isinstance(refused, OverRateLimit)
    assert (refused.window, refused.retry_after_seconds) == (windows[0], 38.5)
    await clock.set(60 * SECOND - 1)
    assert isinstance(await admit(server, make_request(shop, *windows, tokens=50), timed), OverRateLimit)
    await clock.set(60 * SECOND)
    assert isinstance(await admit(server, make_request(shop, *windows, tokens=50), timed), Admitted)


async def test_a_request_over_the_whole_limit_never_fits(server: Redis, shop: str) -> None:
    small, day = token_limit(100), request_limit(1, 86_400)
    await admit(server, make_request(shop, day))

    refused = await admit(server, make_request(shop, day, small, tokens=101))

    assert isinstance(refused, OverRateLimit)
    assert refused.never_fits
    assert (refused.window, refused.needed, refused.retry_after_seconds) == (small, 101, 60)
    blocked = await admit(server, make_request(shop, request_limit(0)))
    assert isinstance(blocked, OverRateLimit)
    assert blocked.never_fits


async def test_a_rejected_request_counts_in_no_window(server: Redis, shop: str) -> None:
    wide, narrow = request_limit(10, 3600), request_limit(1)
    assert isinstance(await admit(server, make_request(shop, wide, narrow)), Admitted)
    before = [await state_of(server, shop, window) for window in (wide, narrow)]

    for _ in range(5):
        refused = await admit(server, make_request(shop, wide, narrow))
        assert isinstance(refused, OverRateLimit)
        assert [quota.remaining for quota in refused.quotas] == [9, 0]

    assert [await state_of(server, shop, window) for window in (wide, narrow)] == before


async def test_windows_are_separate_by_site_name_span_and_unit(server: Redis, shop: str) -> None:
    one = request_limit(1)
    assert isinstance(await admit(server, make_request(shop, one)), Admitted)

    for site, window in (
        (f"{shop}x", one),
        (shop, request_limit(1, name="model:gpt-4o")),
        (shop, request_limit(1, 61)),
        (shop, token_limit(1)),
    ):
        assert isinstance(await admit(server, make_request(site, window, tokens=1)), Admitted)
    assert isinstance(await admit(server, make_request(shop, one)), OverRateLimit)


@pytest.mark.parametrize("limit", [10**6, 10**40])
async def test_a_window_stays_small_whatever_its_limit(
    server: Redis, clock: Clock, timed: Scripts, shop: str, limit: int
) -> None:
    window, now = token_limit(limit), 0
    chance = random.Random(1)

    # The first 64 entries are exact; after them, requests within a 64th of the span share an entry.
    for pause in (1,) * 70 + (SECOND // 2,) * 150:
        now += pause + chance.randint(0, 1000)
        await clock.set(now)
        assert isinstance(await admit(server, make_request(shop, window, tokens=10), timed), Admitted)
        assert len(await state_of(server, shop, window) or b"") <= LARGEST_WINDOW_BYTES


async def test_a_clock_slightly_behind_does_not_reorder_entries(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window = request_limit(2)
    for second in (10, 9.5):
        await clock.set(round(second * SECOND))
        assert isinstance(await admit(server, make_request(shop, window), timed), Admitted)

    # The second is recorded at the first's moment: never earlier than the entry before it.
    await clock.set(69_900_000)
    assert isinstance(await admit(server, make_request(shop, window), timed), OverRateLimit)
    await clock.set(70 * SECOND)
    assert isinstance(await admit(server, make_request(shop, window), timed), Admitted)


async def test_a_reservation_made_before_the_clock_went_back_is_released(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window, early = token_limit(100), make_request(shop, token_limit(100), tokens=60)
    await clock.set(10 * SECOND)
    admitted = await admit(server, early, timed)
    assert isinstance(admitted, Admitted)
    await clock.set(9_500_000)
    assert isinstance(await admit(server, make_request(shop, window, tokens=40), timed), Admitted)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    after = await admit(server, make_request(shop, window, tokens=1), timed)
    assert isinstance(after, Admitted)
    assert after.quotas[0].remaining == 59


async def test_settling_never_releases_the_reservation_of_another_request(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window, early = token_limit(100), make_request(shop, token_limit(100), tokens=60, lease_seconds=9999)
    await clock.set(7200 * SECOND)
    admitted = await admit(server, early, timed)
    assert isinstance(admitted, Admitted)
    await clock.set(0)
    assert isinstance(await admit(server, make_request(shop, window, tokens=1), timed), Admitted)
    # Its entry was taken for new when the clock was set back, and has expired when the clock is right again.
    await clock.set(7201 * SECOND)
    assert isinstance(await admit(server, make_request(shop, window, tokens=10), timed), Admitted)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    after = await admit(server, make_request(shop, window, tokens=1), timed)
    assert isinstance(after, Admitted)
    assert after.quotas[0].remaining <= 99


async def test_a_clock_that_is_set_back_blocks_requests_for_at_most_one_window(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window = request_limit(1)
    await clock.set(7200 * SECOND)
    assert isinstance(await admit(server, make_request(shop, window), timed), Admitted)

    await clock.set(0)
    refused = await admit(server, make_request(shop, window), timed)
    assert isinstance(refused, OverRateLimit)
    assert refused.retry_after_seconds == 60


@pytest.mark.parametrize("seed", range(8))
async def test_settlements_correct_reservations_as_in_the_reference_model(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    window = token_limit(1000, 30)
    plain = PlainWindow(window.limit, window.seconds * SECOND)
    running: list[tuple[WindowEntry, AdmissionRequest, Admitted]] = []

    now = 0
    for _ in range(80):
        now += round(chance.expovariate(chance.choice((0.1, 2))) * SECOND)
        await clock.set(now)
        if running and chance.random() < 0.5:
            entry, request, admitted = running.pop(chance.randrange(len(running)))
            used = chance.choice((0, chance.randint(0, 400)))
            assert await settle(server, to_settlement(request, admitted, used_tokens=used), timed)
            if used > entry.number:
                plain.record(now, used - entry.number)
            else:
                entry.number = used
        else:
            request = make_request(shop, window, tokens=chance.randint(1, 300), lease_seconds=600)
            outcome = await admit(server, request, timed)
            assert isinstance(outcome, Admitted) == plain.fits(now, request.tokens)
            if isinstance(outcome, Admitted):
                running.append((plain.record(now, request.tokens), request, outcome))
            assert isinstance(outcome, Admitted | OverRateLimit)
            assert outcome.quotas[0].remaining == max(plain.limit - plain.held(now), 0)

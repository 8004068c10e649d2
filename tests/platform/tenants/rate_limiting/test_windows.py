"""Sliding windows in Redis against plain Python: never more than the limit, and never refused without a reason."""

import random
from typing import cast

import pytest
from redis.asyncio import Redis

from tenants.rate_limiting.admission import admit, settle
from tenants.rate_limiting.scripts import Scripts
from tenants.rate_limiting.types import AdmissionRequest, Admitted, OverRateLimit, to_settlement
from tenants.rate_limiting.windows import SlidingWindow, site_key_prefix
from tests.platform.tenants.rate_limiting.asking import ask, requests, tokens
from tests.platform.tenants.rate_limiting.conftest import SECOND, Clock
from tests.platform.tenants.rate_limiting.model import Entry, PlainWindow

#: The largest size of a window that `admission` documents.
LARGEST_WINDOW_BYTES = 2_072


async def state_of(server: Redis, site: str, window: SlidingWindow) -> bytes | None:
    return cast(bytes | None, await server.get(site_key_prefix(site) + window.key))


@pytest.mark.parametrize("seed", range(12))
async def test_random_asks_are_let_in_exactly_as_plain_python_would(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    windows = (requests(chance.randint(1, 60)), requests(chance.randint(1, 60), 7), tokens(500), tokens(900, 200))
    plain = [PlainWindow(window.limit, window.seconds * SECOND) for window in windows]

    now = 0
    for _ in range(120):
        now += round(chance.choice((0, 1, chance.expovariate(2) * SECOND, chance.expovariate(0.1) * SECOND)))
        await clock.set(now)
        wanted = chance.randint(0, 120)
        needed = [window.needs(wanted) for window in windows]
        outcome = await admit(server, ask(shop, *windows, tokens=wanted), timed)
        if all(each.fits(now, number) for each, number in zip(plain, needed, strict=True)):
            assert isinstance(outcome, Admitted)
            for each, number in zip(plain, needed, strict=True):
                each.note(now, number)
        else:
            waits = [
                each.wait(now, number) if not each.fits(now, number) else 0
                for each, number in zip(plain, needed, strict=True)
            ]
            assert isinstance(outcome, OverRateLimit)
            assert outcome.retry_after_seconds == max(waits) / SECOND
            assert outcome.window == windows[waits.index(max(waits))]
        assert [left.remaining for left in outcome.quotas] == [each.limit - each.held(now) for each in plain]

    assert all(each.most_at_once() <= each.limit for each in plain)


@pytest.mark.parametrize("seed", range(4))
async def test_beyond_64_asks_a_window_is_late_by_a_64th_at_most_and_never_early(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    window = requests(chance.randint(65, 150))
    plain = PlainWindow(window.limit, window.seconds * SECOND)

    now = 0
    for _ in range(300):
        now += round(chance.expovariate(chance.choice((1, 5, 20))) * SECOND)
        await clock.set(now)
        if isinstance(await admit(server, ask(shop, window), timed), Admitted):
            assert plain.fits(now, 1)
            plain.note(now, 1)
        else:
            assert not plain.fits(now, 1, lateness=window.seconds * SECOND // 64)

    assert plain.most_at_once() == window.limit


async def test_the_moment_that_is_told_is_the_first_at_which_the_ask_fits(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    windows = (requests(3), tokens(100, 45))
    for second, wanted in ((0, 30), (10, 60), (20, 5)):
        await clock.set(round(second * SECOND))
        assert isinstance(await admit(server, ask(shop, *windows, tokens=wanted), timed), Admitted)

    await clock.set(21_500_000)
    refused = await admit(server, ask(shop, *windows, tokens=50), timed)
    assert isinstance(refused, OverRateLimit)
    assert (refused.window, refused.retry_after_seconds) == (windows[0], 38.5)
    await clock.set(60 * SECOND - 1)
    assert isinstance(await admit(server, ask(shop, *windows, tokens=50), timed), OverRateLimit)
    await clock.set(60 * SECOND)
    assert isinstance(await admit(server, ask(shop, *windows, tokens=50), timed), Admitted)


async def test_what_needs_more_than_the_limit_never_fits_and_says_so(server: Redis, shop: str) -> None:
    small, day = tokens(100), requests(1, 86_400)
    await admit(server, ask(shop, day))

    refused = await admit(server, ask(shop, day, small, tokens=101))

    assert isinstance(refused, OverRateLimit)
    assert refused.never_fits
    assert (refused.window, refused.needs, refused.retry_after_seconds) == (small, 101, 60)
    blocked = await admit(server, ask(shop, requests(0)))
    assert isinstance(blocked, OverRateLimit)
    assert blocked.never_fits


async def test_what_is_refused_counts_in_no_window(server: Redis, shop: str) -> None:
    wide, narrow = requests(10, 3600), requests(1)
    assert isinstance(await admit(server, ask(shop, wide, narrow)), Admitted)
    before = [await state_of(server, shop, window) for window in (wide, narrow)]

    for _ in range(5):
        refused = await admit(server, ask(shop, wide, narrow))
        assert isinstance(refused, OverRateLimit)
        assert [left.remaining for left in refused.quotas] == [9, 0]

    assert [await state_of(server, shop, window) for window in (wide, narrow)] == before


async def test_windows_of_sites_names_spans_and_units_are_apart(server: Redis, shop: str) -> None:
    one = requests(1)
    assert isinstance(await admit(server, ask(shop, one)), Admitted)

    for site, window in (
        (f"{shop}x", one),
        (shop, requests(1, name="model:gpt-4o")),
        (shop, requests(1, 61)),
        (shop, tokens(1)),
    ):
        assert isinstance(await admit(server, ask(site, window, tokens=1)), Admitted)
    assert isinstance(await admit(server, ask(shop, one)), OverRateLimit)


@pytest.mark.parametrize("limit", [10**6, 10**40])
async def test_a_window_stays_small_whatever_its_limit(
    server: Redis, clock: Clock, timed: Scripts, shop: str, limit: int
) -> None:
    window, now = tokens(limit), 0
    chance = random.Random(1)

    # A crowd at one moment is kept exactly; after it, whatever comes in a span's 64th shares an entry.
    for pause in (1,) * 70 + (SECOND // 2,) * 150:
        now += pause + chance.randint(0, 1000)
        await clock.set(now)
        assert isinstance(await admit(server, ask(shop, window, tokens=10), timed), Admitted)
        assert len(await state_of(server, shop, window) or b"") <= LARGEST_WINDOW_BYTES


async def test_a_clock_that_is_a_little_back_changes_nothing(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window = requests(2)
    for second in (10, 9.5):
        await clock.set(round(second * SECOND))
        assert isinstance(await admit(server, ask(shop, window), timed), Admitted)

    # The second was noted at the first's moment: never earlier than what was noted before it.
    await clock.set(69_900_000)
    assert isinstance(await admit(server, ask(shop, window), timed), OverRateLimit)
    await clock.set(70 * SECOND)
    assert isinstance(await admit(server, ask(shop, window), timed), Admitted)


async def test_what_was_reserved_before_a_clock_went_back_is_given_back(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window, early = tokens(100), ask(shop, tokens(100), tokens=60)
    await clock.set(10 * SECOND)
    admitted = await admit(server, early, timed)
    assert isinstance(admitted, Admitted)
    await clock.set(9_500_000)
    assert isinstance(await admit(server, ask(shop, window, tokens=40), timed), Admitted)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    after = await admit(server, ask(shop, window, tokens=1), timed)
    assert isinstance(after, Admitted)
    assert after.quotas[0].remaining == 59


async def test_nothing_is_given_back_that_others_reserved(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window, early = tokens(100), ask(shop, tokens(100), tokens=60, lease_seconds=9999)
    await clock.set(7200 * SECOND)
    admitted = await admit(server, early, timed)
    assert isinstance(admitted, Admitted)
    await clock.set(0)
    assert isinstance(await admit(server, ask(shop, window, tokens=1), timed), Admitted)
    # Its entry was taken for new when the clock was set back, and has ended when it is right again.
    await clock.set(7201 * SECOND)
    assert isinstance(await admit(server, ask(shop, window, tokens=10), timed), Admitted)

    await settle(server, to_settlement(early, admitted, used_tokens=0), timed)

    after = await admit(server, ask(shop, window, tokens=1), timed)
    assert isinstance(after, Admitted)
    assert after.quotas[0].remaining <= 99


async def test_a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_a_window(
    server: Redis, clock: Clock, timed: Scripts, shop: str
) -> None:
    window = requests(1)
    await clock.set(7200 * SECOND)
    assert isinstance(await admit(server, ask(shop, window), timed), Admitted)

    await clock.set(0)
    refused = await admit(server, ask(shop, window), timed)
    assert isinstance(refused, OverRateLimit)
    assert refused.retry_after_seconds == 60


@pytest.mark.parametrize("seed", range(8))
async def test_reservations_are_corrected_as_plain_python_would(
    server: Redis, clock: Clock, timed: Scripts, shop: str, seed: int
) -> None:
    chance = random.Random(seed)
    window = tokens(1000, 30)
    plain = PlainWindow(window.limit, window.seconds * SECOND)
    under_way: list[tuple[Entry, AdmissionRequest, Admitted]] = []

    now = 0
    for _ in range(80):
        now += round(chance.expovariate(chance.choice((0.1, 2))) * SECOND)
        await clock.set(now)
        if under_way and chance.random() < 0.5:
            entry, wanted, admitted = under_way.pop(chance.randrange(len(under_way)))
            used = chance.choice((0, chance.randint(0, 400)))
            assert await settle(server, to_settlement(wanted, admitted, used_tokens=used), timed)
            if used > entry.number:
                plain.note(now, used - entry.number)
            else:
                entry.number = used
        else:
            wanted = ask(shop, window, tokens=chance.randint(1, 300), lease_seconds=600)
            outcome = await admit(server, wanted, timed)
            assert isinstance(outcome, Admitted) == plain.fits(now, wanted.tokens)
            if isinstance(outcome, Admitted):
                under_way.append((plain.note(now, wanted.tokens), wanted, outcome))
            assert isinstance(outcome, Admitted | OverRateLimit)
            assert outcome.quotas[0].remaining == max(plain.limit - plain.held(now), 0)

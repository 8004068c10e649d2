"""Four processes of fifty clients each against one limit: exactly the limit is let in."""

import random
from functools import partial

from pytest_django.fixtures import Settings

from tenants.rate_limiting.types import AdmissionRequest
from tests.platform.tenants.rate_limiting.asking import ask, requests, tokens
from tests.platform.tenants.rate_limiting.racers import CLIENTS, PROCESSES, race

SEEDS = range(20)
ASKS = CLIENTS * 2
TOKENS = 7


def limits_of(seed: int) -> tuple[int, int, int]:
    """Return how many requests, tokens and running requests a round allows; some of them more than are asked for."""
    chance = random.Random(seed)
    return chance.randint(1, 500), chance.randint(TOKENS, 500 * TOKENS), chance.randint(1, 500)


def asks_for(run: str, seed: int, process: int) -> list[AdmissionRequest]:
    per_minute, per_hour, at_once = limits_of(seed)
    windows = (requests(per_minute), tokens(per_hour, 3600))
    return [
        ask(f"{run}-{seed}", *windows, tokens=TOKENS, concurrency=at_once, request_id=f"{process}_{n}")
        for n in range(ASKS)
    ]


def test_exactly_the_limit_is_let_in_over_all_processes(settings: Settings, shop: str) -> None:
    let_in = race(settings.REDIS_URL, partial(asks_for, shop), SEEDS)

    allowed = [(per_minute, hour // TOKENS, at_once) for per_minute, hour, at_once in map(limits_of, SEEDS)]
    assert let_in == [min(PROCESSES * ASKS, *each) for each in allowed]
